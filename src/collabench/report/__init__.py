"""Reports: tables, figures, claims and pages made from results, and the accepted reports."""

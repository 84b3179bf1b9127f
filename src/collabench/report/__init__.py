"""Tables, figures, claims and pages that are made of results, and the accepted reports."""

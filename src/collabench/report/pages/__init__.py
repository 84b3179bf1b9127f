"""The pages of a report: tables, figures, claims, papers and costs."""

"""Export, import and verification of results."""

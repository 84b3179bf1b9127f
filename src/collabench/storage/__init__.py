"""What lies on disk: atomic files, locks, the workspace, results and archives."""

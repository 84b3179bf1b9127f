"""Files on disk: atomic writing, locks, the workspace, results and archives."""

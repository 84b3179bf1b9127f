"""One profile: its jobs, status, inputs, runner, estimate, progress and shards."""

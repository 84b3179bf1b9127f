"""A study: one profile's jobs, status, inputs, runner, estimate, progress and shards."""

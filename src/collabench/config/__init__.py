"""What people write: the sections of ``params.yaml``, their validation, configurations, runs and the plan that they
make."""

"""The configuration: the sections of ``params.yaml``, their validation, and the runs and plans that they define."""

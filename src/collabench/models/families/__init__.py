"""The model families that ``params.yaml`` accepts, one file each."""

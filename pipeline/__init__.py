"""What Snakemake and DVC run. Imports the library in ``src/``, never the other way round."""

"""The folder that `snakemake --cache` shares between working directories: what lies in it, what is
used, and what may go."""

"""The number of this version, which is read without anything else."""

__version__ = "0.1.0"

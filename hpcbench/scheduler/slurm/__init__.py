"""Slurm behind the protocol."""

"""Tests against a real Slurm, and the one-machine cluster they run on."""

"""Where jobs run: one protocol, Slurm and local behind it."""

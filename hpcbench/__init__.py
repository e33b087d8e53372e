"""hpcbench: one YAML of fine-tuning experiments in, Slurm jobs, one report out.

Nothing is imported here, so that `hpcbench --help` on a login node stays as quick as Python itself.
"""

__version__ = "0.2.0"

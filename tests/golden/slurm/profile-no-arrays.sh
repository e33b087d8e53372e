#!/bin/bash

# Parameters
#SBATCH --comment='hpcbench tuners'
#SBATCH --cpus-per-task=16
#SBATCH --dependency=afterok:4711
#SBATCH --gres=gpu:a100:2
#SBATCH --job-name=tuners-eval-261121000000-0011aabb
#SBATCH --kill-on-invalid-dep=no
#SBATCH --mem=65536M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/shared/logs/tuners/slurm/%j.out
#SBATCH --requeue
#SBATCH --signal=USR2@300
#SBATCH --time=240

# setup
echo "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID} ${SLURM_RESTART_COUNT:-0} $(hostname)" >> /shared/logs/tuners/submissions/tuners-eval-261121000000-0011aabb.started/${SLURM_ARRAY_TASK_ID:-0}
unset SLURM_CPUS_PER_TASK SLURM_TRES_PER_TASK

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --kill-on-bad-exit=1 --export=ALL --cpus-per-task=16 --chdir=/shared/logs/tuners /shared/venv/bin/python -P -m hpcbench.job /shared/logs/tuners/submissions/tuners-eval-261121000000-0011aabb.json

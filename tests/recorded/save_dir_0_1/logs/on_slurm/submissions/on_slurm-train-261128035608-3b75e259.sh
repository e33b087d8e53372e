#!/bin/bash

# Parameters
#SBATCH --array=0-2
#SBATCH --comment='hpcbench on_slurm'
#SBATCH --cpus-per-task=1
#SBATCH --job-name=on_slurm-train-261128035608-3b75e259
#SBATCH --mem=102M
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=@SAVE_DIR@/on_slurm/slurm/%A_%a.out
#SBATCH --requeue
#SBATCH --signal=USR2@60
#SBATCH --time=5

# setup
echo "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID} ${SLURM_RESTART_COUNT:-0} $(hostname)" >> @SAVE_DIR@/on_slurm/submissions/on_slurm-train-261128035608-3b75e259.started/${SLURM_ARRAY_TASK_ID:-0}
unset SLURM_CPUS_PER_TASK SLURM_TRES_PER_TASK
export HPCBENCH_SIGNAL_LEAD_S=60

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --kill-on-bad-exit=1 --export=ALL --cpus-per-task=1 @CHECKOUT@/.venv/bin/python -m hpcbench.job @SAVE_DIR@/on_slurm/submissions/on_slurm-train-261128035608-3b75e259.json

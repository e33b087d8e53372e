#!/bin/bash

# Parameters
#SBATCH --account=lab-account
#SBATCH --array=0-2,7%16
#SBATCH --comment='hpcbench tuners'
#SBATCH --cpus-per-task=16
#SBATCH --gres=gpu:a100:2
#SBATCH --job-name=tuners-train-261121000000-0011aabb
#SBATCH --mail-type=FAIL
#SBATCH --mem=65536M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/shared/logs/tuners/slurm/%A_%a.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR2@300
#SBATCH --time=240

# setup
echo "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID} ${SLURM_RESTART_COUNT:-0} $(hostname)" >> /shared/logs/tuners/submissions/tuners-train-261121000000-0011aabb.started/${SLURM_ARRAY_TASK_ID:-0}
unset SLURM_CPUS_PER_TASK SLURM_TRES_PER_TASK
export HF_HOME=/shared/huggingface
unset HPCBENCH_SETUP_FAILURES
hpcbench_setup_failed() {
  [ "${#BASH_SOURCE[@]}" -gt 2 ] && return
  local line
  line=$(sed -n "$2p" "$0" 2>/dev/null) || true
  echo "hpcbench: setup line failed (exit code $1): ${line:-$3}" >&2
  export HPCBENCH_SETUP_FAILURES="${HPCBENCH_SETUP_FAILURES:+$HPCBENCH_SETUP_FAILURES$'\n'}${line:-$3} (exit code $1)"
}
trap 'hpcbench_setup_failed "$?" "$LINENO" "$BASH_COMMAND"' ERR
module purge
module load cuda/12.4
source /shared/venvs/hpcbench/bin/activate
trap - ERR

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --kill-on-bad-exit=1 --export=ALL --cpus-per-task=16 --chdir=/shared/logs/tuners /shared/venvs/hpcbench/bin/python -P -m hpcbench.job /shared/logs/tuners/submissions/tuners-train-261121000000-0011aabb.json

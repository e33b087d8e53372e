#!/bin/bash

# Parameters
#SBATCH --account=00123
#SBATCH --array=0-2,7%4
#SBATCH --comment='hpcbench tuners'
#SBATCH --constraint=nvlink
#SBATCH --cpus-per-task=32
#SBATCH --exclude='node[7-8]'
#SBATCH --exclusive
#SBATCH --gpus-per-node=a100:4
#SBATCH --job-name=tuners-train-261121000000-0011aabb
#SBATCH --mail-type=FAIL
#SBATCH --mem-per-cpu=4096M
#SBATCH --no-requeue
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output='/shared/my logs/tuners/slurm/%A_%a.out'
#SBATCH --partition=a100
#SBATCH --qos=long
#SBATCH --signal=USR2@300
#SBATCH --time=2880

# setup
echo "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID} ${SLURM_RESTART_COUNT:-0} $(hostname)" >> '/shared/my logs/tuners/submissions/tuners-train-261121000000-0011aabb.started'/${SLURM_ARRAY_TASK_ID:-0}
unset SLURM_CPUS_PER_TASK SLURM_TRES_PER_TASK
export NCCL_SOCKET_IFNAME=ib0
export QUOTED='a b'"'"'c'
export HF_HUB_OFFLINE=0
export HF_DATASETS_OFFLINE=0
export TRANSFORMERS_OFFLINE=0
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
source /shared/venv/bin/activate
trap - ERR

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --kill-on-bad-exit=1 --export=ALL --cpus-per-task=32 '--chdir=/shared/my logs/tuners' /shared/venv/bin/python -P -m hpcbench.job '/shared/my logs/tuners/submissions/tuners-train-261121000000-0011aabb.json'

#!/bin/bash

# Parameters
#SBATCH --array=0-2,7
#SBATCH --comment='hpcbench tuners'
#SBATCH --cpus-per-task=16
#SBATCH --gres=gpu:a100:2
#SBATCH --job-name=tuners-train-261121000000-0011aabb
#SBATCH --mem=65536M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/shared/logs/tuners/slurm/%A_%a.out
#SBATCH --requeue
#SBATCH --signal=USR2@300
#SBATCH --time=240

# setup
echo "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID} ${SLURM_RESTART_COUNT:-0} $(hostname)" >> /shared/logs/tuners/submissions/tuners-train-261121000000-0011aabb.started/${SLURM_ARRAY_TASK_ID:-0}
unset SLURM_CPUS_PER_TASK SLURM_TRES_PER_TASK
export HF_HOME=/shared/models/huggingface
unset HPCBENCH_SETUP_FAILURES
hpcbench_setup_failed() {
  [ "${#BASH_SOURCE[@]}" -gt 2 ] && return
  local line
  line=$(sed -n "$2p" "$0" 2>/dev/null) || true
  echo "hpcbench: setup line failed (exit code $1): ${line:-$3}" >&2
  export HPCBENCH_SETUP_FAILURES="${HPCBENCH_SETUP_FAILURES:+$HPCBENCH_SETUP_FAILURES$'\n'}${line:-$3} (exit code $1)"
}
trap 'hpcbench_setup_failed "$?" "$LINENO" "$BASH_COMMAND"' ERR
module load apptainer
trap - ERR

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --kill-on-bad-exit=1 --export=ALL --cpus-per-task=16 apptainer exec --nv --bind /shared/logs --bind /shared/models --bind /shared/data:/data:ro /shared/images/hpcbench.sif python -P -m hpcbench.job /shared/logs/tuners/submissions/tuners-train-261121000000-0011aabb.json
code=$?
# A container has no scontrol: what the job asked for is done out here.
after=/shared/logs/tuners/submissions/tuners-train-261121000000-0011aabb.started/${SLURM_ARRAY_TASK_ID:-0}.after
if mv "$after" "$after.done" 2>/dev/null; then
  while read -r verb id; do
    case $verb in
      release) scontrol update JobId="$id" Dependency= ;;
      cancel) scancel --quiet "$id" ;;
      requeue) scontrol requeue Incomplete "$id" ;;
      # A preempted job that leaves before Slurm ends it would not be requeued.
      stay) while scontrol show job -o "$id" | grep -Eq 'JobState=(RUNNING|SIGNALING) .* PreemptTime=[0-9]'; do sleep 15; done ;;
    esac
  done < "$after.done"
fi
exit $code

"""The sbatch script of one submission, rendered by submitit. The only file that uses submitit's private names.

submitit 1.5 has no public way to render a script or to submit a plain command; `pyproject.toml` pins it.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path

from submitit.core.utils import FailedJobError
from submitit.slurm.slurm import SlurmExecutor, _make_sbatch_string

from hpcbench.errors import HpcbenchError, SchedulerError, SubmitError
from hpcbench.scheduler.slurm.own_job import BEING_PREEMPTED
from hpcbench.scheduler.slurm.sbatch_variables import in_clean_environment
from hpcbench.scheduler.slurm.states import compress_indices
from hpcbench.schemas import variables
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.request import Resources
from hpcbench.schemas.submission import JobSettings, Submission
from hpcbench.storage.json_files import write_text
from hpcbench.storage.paths import DoctorPaths, SuitePaths

JOB_ID = re.compile(r"^(\d+)(?:;\S+)?$")
SBATCH_TIMEOUT_S = 90
SBATCH_KILL_AFTER_S = 5
TIMEOUT_EXIT_CODE = 124  # coreutils' timeout, when it had to end the program; 128 and more is a signal
SIGNAL_LEAD_CAP_S = 300
SIGNAL_LEAD_FLOOR_S = 60


def render_script(submission: Submission, *, profile: ClusterProfile, paths: SuitePaths, after_id: str | None) -> str:
    """Return the text of the sbatch script (pure)."""
    resources = submission.resources
    return _renderer(resources, profile)(
        command=_command(submission, profile=profile, paths=paths, cpus=resources.cpus_per_node(profile.cpus_per_gpu)),
        folder=paths.slurm_logs,
        job_name=submission.key,
        setup=_setup(submission, profile, paths),
        signal_delay_s=signal_lead_s(resources.time_min or profile.time_min),
        comment=f"hpcbench {submission.suite}",
        dependency=_dependency(submission, profile, after_id),
        additional_parameters=_flags(submission, profile, paths),
    )


def render_probe(paths: DoctorPaths, profile: ClusterProfile, resources: Resources) -> str:
    """Return the sbatch script of doctor's tiny job, asked for just as real jobs are (pure)."""
    cpus = resources.cpus_per_node(profile.cpus_per_gpu)
    python = python_command(profile, save_dir=paths.save_dir, has_gpus=resources.gpu > 0)
    words = probe_arguments(paths, profile.environments)
    text = _renderer(resources, profile)(
        command=shlex.join([*srun_command(cpus), *python, *words]),
        folder=paths.folder,
        job_name="hpcbench-doctor",
        setup=["unset SLURM_CPUS_PER_TASK SLURM_TRES_PER_TASK", *_exports(profile), *_watched(profile.setup)],
        additional_parameters={**node_flags(resources, profile), "output": str(paths.log).replace("%", "%%")},
    )
    # Not splitlines(), which takes U+2028 and its like in a path for the end of a line, as bash then would too.
    return "\n".join(line for line in text.split("\n") if not line.startswith("#SBATCH --signal"))


def probe_arguments(paths: DoctorPaths, environments: Mapping[str, str]) -> list[str]:
    """Return what Python runs to probe a machine: `node_probe.py`, its result, and the other Pythons to look at."""
    return [str(paths.probe), str(paths.result), *(f"{name}={python}" for name, python in environments.items())]


def _renderer(resources: Resources, profile: ClusterProfile) -> Callable[..., str]:
    return partial(
        _make_sbatch_string,
        partition=resources.partition or profile.partition,
        time=resources.time_min or profile.time_min,
        nodes=resources.nodes,
        ntasks_per_node=1,  # one launcher a node, which starts its ranks itself
        cpus_per_task=resources.cpus_per_node(profile.cpus_per_gpu),
        qos=profile.qos,
        account=profile.account,
        constraint=profile.constraint,
        exclude=",".join(names for names in (profile.exclude, resources.exclude) if names) or None,
        wckey=None,  # type: ignore[arg-type]  # else it names a key of its own, which sites without wckeys refuse
        stderr_to_stdout=True,
        use_srun=False,  # it is in the command, with options that submitit's own does not have
    )


def job_settings(resources: Resources, profile: ClusterProfile) -> JobSettings:
    """Return what the profile decides inside a job (pure)."""
    return JobSettings(
        signal_lead_s=signal_lead_s(resources.time_min or profile.time_min),
        release_evals=profile.release_evals,
        scratch=profile.scratch,
        tokenized_data=profile.tokenized_data,
        setup_failure=profile.setup_failure,
        keep=profile.keep,
        environments=profile.environments,
    )


def signal_lead_s(time_min: int) -> int:
    """Return how long before the time limit USR2 is sent, in seconds: a fifth of it, between one and five minutes."""
    fifth = time_min * 60 // 5  # Slurm sends signals up to a minute early; without handlers they kill the job
    return max(min(fifth, SIGNAL_LEAD_CAP_S), min(SIGNAL_LEAD_FLOOR_S, time_min * 60 // 2))


def _command(submission: Submission, *, profile: ClusterProfile, paths: SuitePaths, cpus: int) -> str:
    python = python_command(profile, save_dir=paths.save_dir, has_gpus=submission.resources.gpu > 0)
    job = ["-P", "-m", "hpcbench.job", str(paths.submission(submission.key))]  # see processes.module_command
    command = shlex.join([*srun_command(cpus), *start_folder(profile, paths.folder), *python, *job])
    if profile.container is None:
        return command
    marks = shlex.quote(str(paths.start_marks(submission.key)))
    return command + "\n" + _AFTER_CONTAINER.format(marks=marks, being_preempted=shlex.quote(BEING_PREEMPTED))


def srun_command(cpus: int) -> list[str]:
    """Return srun and its options."""
    # --export=ALL overrides SBATCH_EXPORT=NONE; since Slurm 22.05 srun does not inherit --cpus-per-task.
    return ["srun", "--unbuffered", "--kill-on-bad-exit=1", "--export=ALL", f"--cpus-per-task={cpus}"]


def start_folder(profile: ClusterProfile, folder: Path) -> list[str]:
    """Return srun's option that starts the job in `folder`, or none where the profile names a file by a relative path.

    The folder of the submit may be gone by then, and an empty entry of PYTHONPATH, as `:/lib` has one, would put it on
    Python's path: before the standard library, also with -P.
    """
    is_relative = "/" in (profile.python or "") and not Path(profile.python or "").is_absolute()
    return [] if is_relative or profile.container is not None else [f"--chdir={folder}"]


def python_command(profile: ClusterProfile, *, save_dir: Path, has_gpus: bool) -> list[str]:
    """Return what starts Python on a compute node: the profile's, or this one, or the one in the container."""
    container = profile.container
    if container is None:
        return [profile.python or sys.executable]
    nv = ["--nv"] if container.nv and has_gpus else []
    binds = [part for bind in (str(save_dir), *container.binds) for part in ("--bind", bind)]
    image = [container.program, "exec", *nv, *binds, *container.options, container.image]
    return [*image, profile.python or "python"]


_AFTER_CONTAINER = """\
code=$?
# A container has no scontrol: what the job asked for is done out here.
after={marks}/${{SLURM_ARRAY_TASK_ID:-0}}.after
if mv "$after" "$after.done" 2>/dev/null; then
  while read -r verb id; do
    case $verb in
      release) scontrol update JobId="$id" Dependency= ;;
      cancel) scancel --quiet "$id" ;;
      requeue) scontrol requeue Incomplete "$id" ;;
      # A preempted job that leaves before Slurm ends it would not be requeued.
      stay) while scontrol show job -o "$id" | grep -Eq {being_preempted}; do sleep 15; done ;;
    esac
  done < "$after.done"
fi
exit $code"""


def _setup(submission: Submission, profile: ClusterProfile, paths: SuitePaths) -> list[str]:
    marks = shlex.quote(str(paths.start_marks(submission.key)))
    index = "${SLURM_ARRAY_TASK_ID:-0}"
    mark = f'echo "${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}} ${{SLURM_RESTART_COUNT:-0}} $(hostname)" >> {marks}/{index}'
    exports = _exports(profile)
    if not profile.offline:
        exports += [f"export {name}=0" for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")]
    # srun refuses to start when this and SLURM_TRES_PER_TASK disagree; the value stands on its command line.
    return [mark, "unset SLURM_CPUS_PER_TASK SLURM_TRES_PER_TASK", *exports, *_watched(profile.setup)]


# The rules are those of `set -e`, which would also end the script, and within the functions of `module` and conda.
# Of what a line sources or calls, only its own exit code counts; $0 is the script, whose lines are the profile's.
_WATCH_SETUP = f"""\
unset {variables.SETUP_FAILURES}
hpcbench_setup_failed() {{
  [ "${{#BASH_SOURCE[@]}}" -gt 2 ] && return
  local line
  line=$(sed -n "$2p" "$0" 2>/dev/null) || true
  echo "hpcbench: setup line failed (exit code $1): ${{line:-$3}}" >&2
  export {variables.SETUP_FAILURES}="${{{variables.SETUP_FAILURES}:+${variables.SETUP_FAILURES}$'\\n'}}\
${{line:-$3}} (exit code $1)"
}}
trap 'hpcbench_setup_failed "$?" "$LINENO" "$BASH_COMMAND"' ERR"""


def _watched(setup: Sequence[str]) -> list[str]:
    """Return the profile's setup lines with what notes those that fail for the supervisor."""
    return [*_WATCH_SETUP.split("\n"), *setup, "trap - ERR"] if setup else []


def _exports(profile: ClusterProfile) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in sorted(profile.env.items())]


def _dependency(submission: Submission, profile: ClusterProfile, after_id: str | None) -> str | None:
    if after_id is None:
        return None
    return f"aftercorr:{after_id}" if submission.array and profile.arrays else f"afterok:{after_id}"


def _flags(submission: Submission, profile: ClusterProfile, paths: SuitePaths) -> dict[str, str | bool]:
    resources = submission.resources
    pattern = "%A_%a.out" if submission.array else "%j.out"
    # A percent sign of the path itself is doubled: sbatch reads % as a pattern.
    flags: dict[str, str | bool] = {"output": f"{str(paths.slurm_logs).replace('%', '%%')}/{pattern}"}
    if submission.array:
        throttle = f"%{profile.array_throttle}" if profile.array_throttle else ""
        flags["array"] = compress_indices(sorted(submission.elements)) + throttle
    if profile.kill_on_invalid_dep is not None:
        flags["kill-on-invalid-dep"] = "yes" if profile.kill_on_invalid_dep else "no"
    elif submission.after_key is not None:
        # With yes, one failed train took evals of successful ones along in arrays of more than ten (22.05).
        flags["kill-on-invalid-dep"] = "no"
    return flags | node_flags(resources, profile)


def node_flags(resources: Resources, profile: ClusterProfile) -> dict[str, str | bool]:
    """Return the flags that ask for GPUs and memory and say whether the job comes back, and the profile's own."""
    cpus = resources.cpus_per_node(profile.cpus_per_gpu)
    # Always explicit: the default is the site's JobRequeue (slurm.conf(5)).
    flags: dict[str, str | bool] = {"requeue" if profile.requeue else "no-requeue": True}
    flags |= gpu_flags(resources, profile)
    flags |= memory_flags(resources, profile, cpus)
    flags |= profile.extra_sbatch
    return flags


def memory_flags(resources: Resources, profile: ClusterProfile, cpus: int) -> dict[str, str | bool]:
    """Return the one flag that asks for a node's memory, shared out by its `cpus` or GPUs where the profile says so."""
    memory_gb = resources.mem_gb or profile.mem_gb
    if memory_gb is None or profile.mem_flag is None:
        return {}
    memory_mib = round(memory_gb * 1024)
    per_node = resources.gpu // resources.nodes
    match profile.mem_flag:
        case "mem-per-cpu":
            return {"mem-per-cpu": f"{-(-memory_mib // cpus)}M"}
        case "mem-per-gpu" if per_node:
            return {"mem-per-gpu": f"{-(-memory_mib // per_node)}M"}
        case _:
            return {"mem": f"{memory_mib}M"}


def gpu_flags(resources: Resources, profile: ClusterProfile) -> dict[str, str | bool]:
    """Return the one flag that asks for the job's GPUs, or none."""
    if resources.gpu == 0 or profile.gpu_flag is None:
        return {}
    kind = f"{resources.gpu_type}:" if resources.gpu_type else ""
    per_node = resources.gpu // resources.nodes
    match profile.gpu_flag:
        case "gres":
            return {"gres": f"gpu:{kind}{per_node}"}
        case "gpus":
            return {"gpus": f"{kind}{resources.gpu}"}
        case "gpus-per-node":
            return {"gpus-per-node": f"{kind}{per_node}"}
        case "gpus-per-task":  # one task per node
            return {"gpus-per-task": f"{kind}{per_node}"}


class CommandExecutor(SlurmExecutor):
    """submitit's Slurm executor, running an sbatch whose script is already rendered and written."""

    def __init__(self, folder: Path, sbatch: Sequence[str]) -> None:
        super().__init__(folder=folder)
        self._sbatch = list(sbatch)

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        del command, uid
        return ""  # submitit would write it in the locale's encoding

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        del submission_file_path
        return self._sbatch

    @staticmethod
    def _get_job_id_from_submission_command(string: bytes | str) -> str:
        text = string.decode(errors="replace") if isinstance(string, bytes) else string
        return parse_job_id(text)


def parse_job_id(text: str) -> str:
    """Return the id in `sbatch --parsable`'s output: the last line that is nothing but an id (banners are skipped).

    Raises:
        SchedulerError: there is none, so it is not known what became of the job.
    """
    for line in reversed(text.strip().splitlines()):
        if match := JOB_ID.match(line.strip()):
            return match.group(1)
    raise SchedulerError(f"sbatch printed no job id: {text.strip()[:200]!r}")


def submit_script(text: str, *, submission: Submission, profile: ClusterProfile, paths: SuitePaths) -> str:
    """Submit the rendered script of a submission and return the job id.

    Raises:
        SubmitError: sbatch refused it; the message is sbatch's own.
        SchedulerError: sbatch did not say what it did, in time or at all.
    """
    # Without the folder of its log a job fails with ExitCode 0:53 and leaves no log.
    paths.slurm_logs.mkdir(parents=True, exist_ok=True)
    paths.start_marks(submission.key).mkdir(parents=True, exist_ok=True)
    # Slurm keeps its own copy at once; ours stays beside the submission.
    script = paths.script(submission.key)
    write_text(script, text)
    return run_sbatch(script, text, profile=profile, key=submission.key)


def run_sbatch(script: Path, text: str, *, profile: ClusterProfile, key: str) -> str:
    """Submit a script file with this text through submitit and return the job id; it raises as `submit_script`."""
    # submitit waits for ever. timeout also ends what sbatch has started, and keeps Ctrl-C from ending it half-way.
    command = ["timeout", f"--kill-after={SBATCH_KILL_AFTER_S}", str(SBATCH_TIMEOUT_S)]
    command += ["sbatch", "--parsable", str(script)]
    command = in_clean_environment(command, os.environ, script=text, profile=profile, key=key)
    with tempfile.TemporaryDirectory(prefix="hpcbench-", ignore_cleanup_errors=True) as folder:
        executor = CommandExecutor(Path(folder), command)  # submitit takes a `%j` in a folder for its pattern
        try:
            # submitit prints a refusal and raises it too; a limit that is met many times is reported once.
            with redirect_stderr(io.StringIO()):
                job = executor._submit_command("")  # noqa: SLF001  # submitit has no public call for a plain command
        except FailedJobError as error:
            cause = error.__cause__
            code = cause.returncode if isinstance(cause, subprocess.CalledProcessError) else -1
            raise read_failure(code, str(error)) from error
    return str(job.job_id)


def read_failure(code: int, text: str) -> HpcbenchError:
    """Return what a failed sbatch means: a refusal, or an unknown effect; `code` is negative for a signal (pure)."""
    words = _last_words(text)
    if code == TIMEOUT_EXIT_CODE:
        return SchedulerError(f"sbatch: no answer within {SBATCH_TIMEOUT_S} s")
    if code < 0 or code > TIMEOUT_EXIT_CODE + 3:  # a signal, as subprocess or as timeout gives it
        return SchedulerError(f"sbatch was killed (exit code {code}){': ' if words else ''}{words}")
    return SubmitError(words) if words else SchedulerError(f"sbatch failed without a word (exit code {code})")


def _last_words(text: str) -> str:
    lines = [line for line in text.splitlines() if "sbatch: error" in line or "sbatch: fatal" in line]
    return "; ".join(line.split("error: ", 1)[-1].strip() for line in lines) or text.strip()

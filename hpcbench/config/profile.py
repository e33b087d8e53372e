"""Cluster profiles: what differs between clusters and never between experiments.

In: a name, a host name, or nothing. Out: a `ClusterProfile`. Searched in the user's `~/.config/hpcbench/clusters`, then
in `configs/clusters` below the current folder, then among those that ship with hpcbench. Nothing here asks the cluster
anything.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from hpcbench.config.reserved_sbatch import reserved_option
from hpcbench.errors import ConfigError, Problem

logger = logging.getLogger(__name__)

LOCAL = "local"
AUTO = "auto"
PLAIN = "slurm"
"""A Slurm of which no profile says anything: the name of the default profile's values."""


def _as_text(value: object) -> object:
    """Accounts and QOS made of digits are numbers to YAML and text to Slurm."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _in_one_line(text: str) -> str:
    """These texts stand in `#SBATCH` lines, which end with the line: what came after would be run."""
    if not text.isprintable():
        raise ValueError("a line break or another control character")
    return text


def _check_options(options: dict[str, str | bool]) -> dict[str, str | bool]:
    for name in options:
        if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) is None:
            raise ValueError(f"{name!r} is no name of an sbatch option")
    return options


def _check_variables(variables: dict[str, str]) -> dict[str, str]:
    for name in variables:
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is None:
            raise ValueError(f"{name!r} is no name of an environment variable")
    return variables


Text = Annotated[str, BeforeValidator(_as_text)]
Line = Annotated[str, BeforeValidator(_as_text), AfterValidator(_in_one_line)]


class Container(BaseModel):
    """Where jobs run inside an image; the batch script itself runs outside."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    image: str
    """A `.sif` file on shared storage, or anything else that `apptainer exec` takes."""
    binds: tuple[str, ...] = ()
    """Folders to see inside, `source[:target[:ro]]`; the save directory is added by itself."""
    nv: bool = True
    """Whether jobs with GPUs get NVIDIA's driver (`--nv`)."""
    program: Literal["apptainer", "singularity"] = "apptainer"
    options: tuple[str, ...] = ()
    """Any other option of `exec`, for example `--cleanenv`."""


class ClusterProfile(BaseModel):
    """How jobs are asked for on one cluster; null means that nothing is emitted."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = PLAIN
    hosts: tuple[str, ...] = ()
    """Globs of login node names; `--cluster auto` takes the first profile that matches this host."""
    partition: Line | None = None
    account: Line | None = None
    qos: Line | None = None
    gpu_flag: Literal["gres", "gpus", "gpus-per-node", "gpus-per-task"] | None = "gres"
    """The one flag that asks for GPUs."""
    mem_flag: Literal["mem", "mem-per-cpu", "mem-per-gpu"] | None = "mem"
    """The one flag that asks for host memory; jobs without a GPU take `mem` for `mem-per-gpu`."""
    mem_gb: float | None = Field(default=None, gt=0)
    """Host memory per node in GiB for jobs that do not say."""
    time_min: int = Field(default=240, ge=1)
    """Time limit in minutes for jobs that do not say."""
    time_max_min: int | None = Field(default=None, ge=1)
    """Longest time limit in minutes that a job may ask for; longer ones are refused before anything is queued."""
    cpus_per_gpu: int | None = Field(default=4, ge=1)
    constraint: Line | None = None
    exclude: Line | None = None
    array_throttle: int | None = Field(default=None, ge=1)
    """Elements of one array that may run at once."""
    arrays: bool = True
    """False submits every job on its own, evals with afterok."""
    max_array_size: int | None = Field(default=None, ge=2)
    """One more than the largest array index; null asks `scontrol show config`."""
    max_submitted: int | None = Field(default=None, ge=1)
    """Jobs that you may have in the queue at once, array elements counted one by one; the rest stays planned."""
    poll_s: float = Field(default=30, ge=1)
    """Seconds between two questions to the scheduler while a command watches or waits; files are read more often."""
    release_evals: bool = True
    """Whether compute nodes may call scontrol; False caps arrays at what Slurm itself keeps apart."""
    kill_on_invalid_dep: bool | None = None
    requeue: bool = True
    setup: tuple[str, ...] = ()
    """Shell lines before the job: module load, conda or venv activation."""
    python: str | None = None
    """Python on the compute nodes; null is the one that submits, in a container `python`."""
    container: Container | None = None
    """Image that jobs run in; null runs them on the node itself."""
    env: Annotated[dict[str, Text], AfterValidator(_check_variables)] = Field(default_factory=dict)
    save_dir: str | None = None
    scratch: str | None = None
    """Folder on shared storage where checkpoints go instead of the save directory; `$USER` and the like are filled in
    on the node."""
    keep: Literal["best", "adapter", "last", "none"] | None = None
    """The checkpoint that stays once an experiment's train job and all its evals are recorded; `adapter` is the best
    one if it is an adapter, else none; null keeps all."""
    offline: bool = True
    """Whether jobs run with the hubs switched off."""
    extra_sbatch: Annotated[dict[str, Line | bool], AfterValidator(_check_options)] = Field(default_factory=dict)
    """Any other sbatch option, without dashes; true is a bare flag. Those that hpcbench writes itself are refused."""
    _file: Path | None = PrivateAttr(default=None)

    @property
    def file(self) -> Path | None:
        """Where it was read, absolute; None of values that no file gave."""
        return self._file

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if self.time_max_min is not None and self.time_min > self.time_max_min:
            raise ValueError(f"time_min ({self.time_min}) is longer than time_max_min ({self.time_max_min})")
        return self


def profile_folders(environ: Mapping[str, str]) -> list[Path]:
    """Return the folders that are searched for profiles, first match wins."""
    shipped = Path(__file__).parents[1] / "_shipped" / "configs" / "clusters"
    checkout = Path(__file__).parents[2] / "configs" / "clusters"
    return [user_folder(environ), Path("configs/clusters"), shipped, checkout]


def user_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of the user's own profiles."""
    home = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".config")
    return home / "hpcbench" / "clusters"


def load_profile(
    cluster: str = AUTO, environ: Mapping[str, str] | None = None, host: str | None = None
) -> ClusterProfile | None:
    """Return the profile called `cluster`, or None for local mode.

    `auto` is local without `sbatch` on PATH; else the first profile whose `hosts` match this host, else the profile
    `default`, else a plain Slurm.

    Raises:
        ConfigError: no such profile, or a file that is none.
    """
    environ = os.environ if environ is None else environ
    if cluster == LOCAL:
        return None
    if cluster == AUTO:
        if shutil.which("sbatch") is None:
            return None
        # Either may be no more than "localhost".
        hosts = (socket.getfqdn(), socket.gethostname()) if host is None else (host,)
        file = _find_by_host(hosts, environ) or _find("default", environ)
        return ClusterProfile() if file is None else read_profile(file)
    file = Path(cluster) if cluster.endswith((".yaml", ".yml")) else _find(cluster, environ)
    if file is None and cluster == PLAIN:
        return ClusterProfile()
    if file is None:
        raise ConfigError([_no_such_profile(cluster, environ)])
    return read_profile(file)


def _no_such_profile(cluster: str, environ: Mapping[str, str]) -> Problem:
    from hpcbench.config.names import did_you_mean

    known = sorted({file.stem for file in _profile_files(environ)})
    listed = f"known profiles: {', '.join(known)}" if known else f"write one into {user_folder(environ)}"
    hint = did_you_mean(cluster, known) or f"{listed}; hpcbench init writes one"
    expected = f"{AUTO}, {LOCAL}, {PLAIN}, or a profile"
    return Problem(file="--cluster", line=None, path=cluster, message="no such profile", expected=expected, hint=hint)


def read_profile(file: Path) -> ClusterProfile:
    """Read one profile.

    Raises:
        ConfigError: the file cannot be read or holds something else; all its mistakes, each with its line.
    """
    try:
        text = file.read_text(encoding="utf-8")
        value = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError([Problem(file=str(file), line=None, path="", message=f"cannot be read: {error}")]) from error
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise ConfigError([Problem(file=str(file), line=None, path="", message="not a mapping", expected="key: value")])
    if any(not isinstance(key, str) for key in value):
        wrong = next(key for key in value if not isinstance(key, str))
        raise ConfigError([Problem(file=str(file), line=None, path=str(wrong), message="not a key", hint="quote it")])
    reserved = _find_reserved(value, file, text)
    try:
        profile = ClusterProfile.model_validate({"name": file.stem, **value})
    except ValidationError as error:
        raise ConfigError([*_describe_mistakes(error, file, text), *reserved]) from error
    if reserved:
        raise ConfigError(reserved)
    profile._file = file.absolute()  # noqa: SLF001  # no key of the file, so no field
    return profile


def _find_reserved(value: Mapping[str, object], file: Path, text: str) -> list[Problem]:
    """Return the options of `extra_sbatch` that are hpcbench's own."""
    options = value.get("extra_sbatch")
    fields = ClusterProfile.model_fields
    flags = {name: value.get(name, fields[name].default) for name in ("gpu_flag", "mem_flag")}
    found = []
    for name, given in options.items() if isinstance(options, dict) else ():
        instead = reserved_option(str(name), given, gpu_flag=flags["gpu_flag"], mem_flag=flags["mem_flag"])
        if instead is not None:
            place = ("extra_sbatch", str(name))
            found.append(
                Problem(
                    file=str(file),
                    line=line_of_key(text, place),
                    path=".".join(place),
                    message="not an option for extra_sbatch, since hpcbench sets it or goes by it",
                    hint=instead,
                )
            )
    return found


def file_to_remember(profile: ClusterProfile | None, environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the file of a profile that its name alone does not lead to from everywhere, else None."""
    if profile is None or profile.file is None:
        return None
    # What is found below the current folder is relative, and so never the same.
    return None if _find(profile.name, os.environ if environ is None else environ) == profile.file else profile.file


def _describe_mistakes(error: ValidationError, file: Path, text: str) -> list[Problem]:
    """Return pydantic's findings as problems, unknown keys with the name that may have been meant."""
    from hpcbench.config.names import did_you_mean

    problems = []
    for item in error.errors():
        place = item["loc"]
        unknown = item["type"] == "extra_forbidden"
        fields = (Container if place[:1] == ("container",) else ClusterProfile).model_fields
        problems.append(
            Problem(
                file=str(file),
                line=line_of_key(text, place),
                path=".".join(str(part) for part in place),
                message="unknown key" if unknown else item["msg"].removeprefix("Value error, "),
                expected=", ".join(fields) if unknown else None,
                hint=did_you_mean(str(place[-1]), fields) if unknown else None,
            )
        )
    return problems


def line_of_key(text: str, place: Sequence[str | int]) -> int | None:
    """Return the line, from 1, where a key of a YAML text stands; of what is missing, its parent's (pure)."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    line: int | None = None
    for part in place:
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if key.value == str(part)]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            pairs = [(node.value[part], node.value[part])]
        else:
            pairs = []
        if not pairs:
            return line
        line = pairs[-1][0].start_mark.line + 1
        node = pairs[-1][1]
    return line


def _profile_files(environ: Mapping[str, str]) -> Iterator[Path]:
    for folder in profile_folders(environ):
        yield from sorted(file for suffix in ("*.yaml", "*.yml") for file in folder.glob(suffix))


def _find(name: str, environ: Mapping[str, str]) -> Path | None:
    return next((file for file in _profile_files(environ) if file.stem == name), None)


def _find_by_host(hosts: Sequence[str], environ: Mapping[str, str]) -> Path | None:
    """Return the first profile with a glob for this host, by its full or its short names."""
    names = {name for host in hosts for name in (host.lower(), host.lower().split(".", 1)[0])}
    for file in _profile_files(environ):
        try:
            value = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            logger.warning("%s: cannot be read; not asked whether it is for this host", file)
            continue
        globs = value.get("hosts") if isinstance(value, dict) else None
        if isinstance(globs, list) and any(fnmatchcase(n, str(glob).lower()) for glob in globs for n in names):
            return file
    return None

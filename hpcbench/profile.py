"""Cluster profiles: what differs between clusters and never between experiments.

In: a name, or nothing. Out: a `ClusterProfile`. Searched in the user's `~/.config/hpcbench/clusters`, then in
`configs/clusters` below the current folder, then among those that ship with hpcbench. Nothing here asks the cluster
anything.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from hpcbench.errors import ConfigError, Problem

LOCAL = "local"
AUTO = "auto"
PLAIN = "slurm"
"""A Slurm of which no profile says anything: the name of the default profile's values."""


def _as_text(value: object) -> object:
    """Accounts and QOS made of digits are numbers to YAML and text to Slurm."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_as_text)]


class ClusterProfile(BaseModel):
    """How jobs are asked for on one cluster; null means that nothing is emitted."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = PLAIN
    partition: Text | None = None
    account: Text | None = None
    qos: Text | None = None
    gpu_flag: Literal["gres", "gpus", "gpus-per-node", "gpus-per-task"] | None = "gres"
    """The one flag that asks for GPUs."""
    mem_flag: Literal["mem", "mem-per-cpu"] | None = "mem"
    """The one flag that asks for host memory."""
    mem_gb: float | None = Field(default=None, gt=0)
    """Host memory per node in GiB for jobs that do not say."""
    time_min: int = Field(default=240, ge=1)
    """Time limit in minutes for jobs that do not say."""
    cpus_per_gpu: int | None = Field(default=4, ge=1)
    constraint: Text | None = None
    exclude: Text | None = None
    array_throttle: int | None = Field(default=None, ge=1)
    """Elements of one array that may run at once."""
    arrays: bool = True
    """False submits every job on its own, evals with afterok."""
    max_array_size: int | None = Field(default=None, ge=2)
    """One more than the largest array index; null asks `scontrol show config`."""
    release_evals: bool = True
    """Whether compute nodes may call scontrol; False caps arrays at what Slurm itself keeps apart."""
    kill_on_invalid_dep: bool | None = None
    requeue: bool = True
    setup: tuple[str, ...] = ()
    """Shell lines before the job: module load, conda or venv activation."""
    python: str | None = None
    """Python on the compute nodes; null is the one that submits."""
    env: dict[str, Text] = Field(default_factory=dict)
    save_dir: str | None = None
    offline: bool = True
    """Whether jobs run with the hubs switched off."""
    extra_sbatch: dict[str, Text | bool] = Field(default_factory=dict)
    """Any other sbatch option, without dashes; true is a bare flag."""


def profile_folders(environ: Mapping[str, str]) -> list[Path]:
    """Return the folders that are searched for profiles, first match wins."""
    home = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".config")
    shipped = Path(__file__).parent / "_shipped" / "configs" / "clusters"
    checkout = Path(__file__).parents[1] / "configs" / "clusters"
    return [home / "hpcbench" / "clusters", Path("configs/clusters"), shipped, checkout]


def load_profile(cluster: str = AUTO, environ: Mapping[str, str] | None = None) -> ClusterProfile | None:
    """Return the profile called `cluster`, or None for local mode.

    `auto` is the profile `default` where there is one, else a plain Slurm where `sbatch` is on PATH, else local.

    Raises:
        ConfigError: no such profile, or a file that is none.
    """
    environ = os.environ if environ is None else environ
    if cluster == LOCAL:
        return None
    if cluster == AUTO:
        if shutil.which("sbatch") is None:
            return None
        file = _find("default", environ)
        return ClusterProfile() if file is None else read_profile(file)
    file = Path(cluster) if cluster.endswith((".yaml", ".yml")) else _find(cluster, environ)
    if file is None and cluster == PLAIN:
        return ClusterProfile()
    if file is None:
        folders = profile_folders(environ)
        known = sorted({entry.stem for folder in folders for entry in folder.glob("*.yaml")})
        hint = f"known profiles: {', '.join(known)}" if known else f"write one into {folders[0]}"
        expected = f"{AUTO}, {LOCAL}, {PLAIN}, or a profile"
        problem = Problem(
            file="--cluster", line=None, path=cluster, message="no such profile", expected=expected, hint=hint
        )
        raise ConfigError([problem])
    return read_profile(file)


def read_profile(file: Path) -> ClusterProfile:
    """Read one profile.

    Raises:
        ConfigError: the file cannot be read or holds something else.
    """
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError([Problem(file=str(file), line=None, path="", message=f"cannot be read: {error}")]) from error
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise ConfigError([Problem(file=str(file), line=None, path="", message="not a mapping", expected="key: value")])
    try:
        return ClusterProfile.model_validate({"name": file.stem, **value})
    except ValidationError as error:
        fields = ", ".join(ClusterProfile.model_fields)
        problems = [
            Problem(
                file=str(file),
                line=None,
                path=".".join(str(part) for part in item["loc"]),
                message="unknown key" if item["type"] == "extra_forbidden" else item["msg"],
                expected=fields if item["type"] == "extra_forbidden" else None,
            )
            for item in error.errors()
        ]
        raise ConfigError(problems) from error


def _find(name: str, environ: Mapping[str, str]) -> Path | None:
    for folder in profile_folders(environ):
        for suffix in (".yaml", ".yml"):
            if (file := folder / f"{name}{suffix}").is_file():
                return file
    return None

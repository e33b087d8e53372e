"""Cluster profiles: what differs between clusters and never between experiments.

In: a name, a host name, or nothing. Out: a `ClusterProfile`. Searched in the user's `~/.config/hpcbench/clusters`, then
in `configs/clusters` below the current folder, then among those that ship with hpcbench. Nothing here asks the cluster
anything.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import yaml
from pydantic import (
    ValidationError,
)

from hpcbench.config.reserved_sbatch import reserved_option
from hpcbench.errors import ConfigError, Problem
from hpcbench.schemas.cluster_profile import PLAIN, ClusterProfile, Container
from hpcbench.schemas.states import LOCAL

logger = logging.getLogger(__name__)

AUTO = "auto"


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

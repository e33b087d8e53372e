"""Cluster profiles: what differs between clusters and never between experiments; the cluster is not queried.

Searched in the user's `~/.config/hpcbench/clusters`, then in `configs/clusters` below the current folder, then among
those that ship with hpcbench.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import ValidationError

from hpcbench.config.reserved_sbatch import reserved_option
from hpcbench.errors import ConfigError, Problem, did_you_mean
from hpcbench.schemas.cluster_profile import LOCAL, PLAIN, ClusterProfile
from hpcbench.storage.located_yaml import Located, describe_mistakes, read_mapping, read_yaml, to_plain
from hpcbench.storage.package_data import package_roots, user_config_dir

logger = logging.getLogger(__name__)

AUTO = "auto"


def profile_folders(environ: Mapping[str, str]) -> list[Path]:
    """Return the folders that are searched for profiles, first match wins."""
    shipped = [root / "configs" / "clusters" for root in package_roots()]
    return [user_folder(environ), Path("configs/clusters"), *shipped]


def user_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of the user's own profiles."""
    return user_config_dir(environ) / "clusters"


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
    known = profile_names(environ)
    listed = f"known profiles: {', '.join(known)}" if known else f"write one into {user_folder(environ)}"
    hint = did_you_mean(cluster, known) or f"{listed}; hpcbench init writes one"
    expected = f"{AUTO}, {LOCAL}, {PLAIN}, or a profile"
    return Problem(file="--cluster", line=None, path=cluster, message="no such profile", expected=expected, hint=hint)


def read_profile(file: Path) -> ClusterProfile:
    """Read one profile.

    Raises:
        ConfigError: the file cannot be read or holds something else; all its mistakes, each with its line.
    """
    document = read_mapping(file)
    problems = _find_reserved(document)
    try:
        # pydantic reads a float from text, but not the text of an account 12e4 or a variable 1e-3 from a float.
        values = {"name": file.stem, **to_plain(document, floats_as_text=True)}
        profile = ClusterProfile.model_validate(values, context={"file": file.absolute()})
    except ValidationError as error:
        raise ConfigError([*describe_mistakes(error, document, ClusterProfile), *problems]) from error
    if problems:
        raise ConfigError(problems)
    return profile


def environments_of(profile: ClusterProfile | None, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environments of a profile by name, or in local mode (None) those of this machine.

    Raises:
        ConfigError: the file of this machine's environments cannot be read, or sets more than them.
    """
    if profile is not None:
        return profile.environments
    file = local_file(environ)
    if not file.is_file():
        return {}
    entries = read_mapping(file).mapping or {}
    if extra := [name for name in entries if name not in {"name", "environments"}]:
        message = "has no effect without a scheduler, where only `environments` is read"
        raise ConfigError([entries[name].problem(message, expected="`environments` alone") for name in extra])
    return read_profile(file).environments


def local_file(environ: Mapping[str, str]) -> Path:
    """Return the file that names the environments of jobs that run on this machine, without a scheduler."""
    return user_folder(environ) / f"{LOCAL}.yaml"


def _find_reserved(document: Located) -> list[Problem]:
    values = to_plain(document)
    options = document.at(("extra_sbatch",)).mapping
    if "extra_sbatch" not in values or options is None:
        return []
    fields = ClusterProfile.model_fields
    flags = {name: values.get(name, fields[name].default) for name in ("gpu_flag", "mem_flag")}
    found = []
    for name, given in options.items():
        instead = reserved_option(name, to_plain(given), gpu_flag=flags["gpu_flag"], mem_flag=flags["mem_flag"])
        if instead is not None:
            found.append(given.problem("not an option for extra_sbatch, since hpcbench sets or reads it", hint=instead))
    return found


def file_to_remember(profile: ClusterProfile | None, environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the file of a profile that its name alone does not lead to from everywhere, else None."""
    if profile is None or profile.file is None:
        return None
    # What is found below the current folder is relative, and so never the same.
    return None if _find(profile.name, os.environ if environ is None else environ) == profile.file else profile.file


def profile_names(environ: Mapping[str, str]) -> list[str]:
    """Return the names of all profiles that are found, sorted."""
    return sorted({file.stem for file in _profile_files(environ)})


def _profile_files(environ: Mapping[str, str]) -> Iterator[Path]:
    for folder in profile_folders(environ):
        yield from sorted(file for suffix in ("*.yaml", "*.yml") for file in folder.glob(suffix))


def _find(name: str, environ: Mapping[str, str]) -> Path | None:
    return next((file for file in _profile_files(environ) if file.stem == name), None)


def _find_by_host(hosts: Sequence[str], environ: Mapping[str, str]) -> Path | None:
    """Return the first profile with a glob for this host, by its full or its short names."""
    names = {name for host in hosts for name in (host.lower(), host.lower().split(".", 1)[0])}
    for file in _profile_files(environ):
        problems: list[Problem] = []
        document = read_yaml(file, file=str(file), problems=problems, may_be_empty=True)
        if document is None:
            logger.warning("%s; its hosts are not compared with this one", problems[0].render())
            continue
        globs = to_plain(document.mapping["hosts"]) if document.mapping and "hosts" in document.mapping else None
        if isinstance(globs, list) and any(fnmatchcase(n, str(glob).lower()) for glob in globs for n in names):
            return file
    return None

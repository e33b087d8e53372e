"""Check what suites will read: models, data and eval tasks, found as an offline job would find them.

The worker's own code searches in its own process, with the hubs switched off.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcbench.cluster.doctor_checks import Check, check_input
from hpcbench.cluster.input_environments import group_by_environment
from hpcbench.cluster.node_probe import HUB, find_hub_error
from hpcbench.plan.requests import plan_suite
from hpcbench.processes.start import module_command
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.request import JobRequest
from hpcbench.schemas.suite import Suite
from hpcbench.storage.json_files import read_json

LOOK_TIMEOUT_S = 900
"""Reading a large dataset takes minutes; a query that takes longer has failed."""


def check_inputs(suites: Sequence[Suite], profile: ClusterProfile | None, *, cluster: str = "auto") -> Iterator[Check]:
    """Yield a check for each model, dataset and eval dataset of the suites.

    Args:
        suites: whose inputs are looked for.
        profile: of the cluster, None for local mode.
        cluster: how the profile was named, for the commands that are advised.
    """
    configs = shlex.join(str(suite.file) for suite in suites)
    command = f"hpcbench prefetch {configs}" + ("" if cluster == "auto" else f" --cluster {shlex.quote(cluster)}")
    requests = [job for suite in suites for job in plan_suite(suite, save_dir=Path("logs").absolute(), inputs={})]
    for environ, group in group_by_environment(requests, profile, os.environ):
        yield from _check_group(group, environ, command=command, are_offline=jobs_are_offline(profile, environ))


def _check_group(
    requests: Sequence[JobRequest], environ: Mapping[str, str], *, command: str, are_offline: bool
) -> Iterator[Check]:
    found, why = _look(requests, environ)
    if found is None:
        remedy = "install hpcbench-llm[worker] here, or run doctor where it is installed"
        yield Check(name="inputs", level="warning", message=f"not checked: {why}", remedy=remedy)
        return
    hub_error = None
    if any(not item["ok"] for item in found):
        hub_error = find_hub_error(environ.get("HF_ENDPOINT", HUB))
        in_reach = "in reach" if hub_error is None else f"out of reach: {hub_error}"
        yield Check(name="hub from here", level="ok" if hub_error is None else "warning", message=in_reach)
    for item in found:
        yield check_input(item, command=command, are_offline=are_offline, hub_error=hub_error)


def jobs_are_offline(profile: ClusterProfile | None, environ: Mapping[str, str]) -> bool:
    """Return whether jobs run with the hubs switched off (pure); see `job/launch.py`."""
    if profile is not None:
        return profile.offline
    return environ.get("HF_HUB_OFFLINE", "1") not in {"0", ""}


def _look(requests: Sequence[JobRequest], environ: Mapping[str, str]) -> tuple[list[dict[str, Any]] | None, str]:
    """Return what was found, or None and why nothing was checked."""
    text = json.dumps([request.model_dump(mode="json") for request in requests])
    with tempfile.TemporaryDirectory(prefix="hpcbench-doctor-") as folder:
        result = Path(folder) / "found.json"
        command = module_command("hpcbench.worker.prefetch", "--check", str(result))
        try:
            done = subprocess.run(
                command,
                input=text,
                text=True,
                capture_output=True,
                check=False,
                env=dict(environ),
                timeout=LOOK_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            return None, f"that took more than {LOOK_TIMEOUT_S // 60} min"
        value = read_json(result)
    if value is None:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return None, lines[-1]
    return value["found"], ""

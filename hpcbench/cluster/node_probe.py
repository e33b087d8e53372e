"""What one compute node can see: a tiny program that `hpcbench doctor` sends through the queue.

Standard library only: it runs from a copy on the save directory, without hpcbench. A failed question stops no other.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "lm_eval")
DISTRIBUTIONS = {"lm_eval": "lm-eval"}
HUB = "https://huggingface.co"
HUB_TIMEOUT_S = 5
SETUP_FAILURES = "HPCBENCH_SETUP_FAILURES"
"""Of `schemas/variables.py`; a probe must run where hpcbench is missing."""
REQUIRED = ("pydantic", "yaml", "jinja2", "PIL")
"""Of `schemas/environments.py`, for the same reason."""
MODULES = {"ms_swift": "swift"}
"""Environment -> the module that it is for, where that has another name."""
ENVIRONMENT_PROBE = """
import importlib.util, json, platform, sys
missing = [name for name in sys.argv[1].split(",") if importlib.util.find_spec(name) is None]
print(json.dumps({"version": platform.python_version(), "missing": missing}))
"""


def main() -> None:
    """Write down what the node has; arguments: the file to write, then `NAME=PYTHON` for each other environment."""
    target = Path(sys.argv[1])
    environments = dict(word.split("=", 1) for word in sys.argv[2:])
    seen = {
        "host": socket.gethostname(),
        "python": sys.executable,
        "python_version": ".".join(map(str, sys.version_info[:3])),
        "hpcbench": _hpcbench(),
        "packages": {name: _version(name) for name in PACKAGES},
        "torch": _torch(),
        "hub": find_hub_error(os.environ.get("HF_ENDPOINT", HUB)),
        "scontrol": _scontrol(),
        "setup_failures": os.environ.get(SETUP_FAILURES, "").splitlines(),
        "environments": {name: _environment(name, python) for name, python in environments.items()},
    }
    staging = target.with_suffix(".tmp")
    staging.write_text(json.dumps(seen), encoding="utf-8")
    staging.replace(target)


def _environment(name: str, python: str) -> dict[str, object]:
    """Return what another Python holds of what hpcbench's worker needs there, or why it does not run."""
    python = os.path.expanduser(python)  # noqa: PTH111  # Path.expanduser raises without a home
    modules = ",".join((*REQUIRED, MODULES.get(name, name)))
    environ = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    command = [python, "-P", "-c", ENVIRONMENT_PROBE, modules]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environ)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"python": python, "error": str(error)[:300]}
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"python": python, "error": lines[-1][:300]}
    return {"python": python, "error": None, **json.loads(done.stdout)}


def _hpcbench() -> str | None:
    try:
        return str(importlib.import_module("hpcbench").__version__)
    except Exception:  # noqa: BLE001  # whatever a broken installation raises
        return None


def _version(name: str) -> str | None:
    if importlib.util.find_spec(name) is None:
        return None
    try:
        return importlib.metadata.version(DISTRIBUTIONS.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _torch() -> dict[str, object]:
    try:
        torch = importlib.import_module("torch")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        names = [torch.cuda.get_device_name(number) for number in range(count)]
    except Exception as error:  # noqa: BLE001  # a missing driver library is an answer too
        return {"num_gpus": 0, "names": [], "build": None, "error": f"{type(error).__name__}: {error}"[:300]}
    return {"num_gpus": count, "names": names, "build": torch.version.cuda, "error": None}


def find_hub_error(url: str) -> str | None:
    """Return nothing when the hub answers within a few seconds, through a proxy where the environment names one."""
    if not url.startswith(("https://", "http://")):
        return f"{url}: no web address"
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310  # checked above
    try:
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S):  # noqa: S310
            return None
    except urllib.error.HTTPError:
        return None
    except (OSError, ValueError) as error:
        return str(error)[:200] or type(error).__name__


def _scontrol() -> bool:
    """Return whether this node reaches slurmctld, as a job does to release those that take its model."""
    program = shutil.which("scontrol")
    if program is None:
        return False
    try:
        done = subprocess.run([program, "ping"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "UP" in done.stdout


if __name__ == "__main__":
    main()

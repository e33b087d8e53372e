"""Folders put in place whole: flushed to disk, and only while this process still has the job's claim.

In: a folder that is complete, and the job that it belongs to. Out: its files on disk with the usual modes, or the error
of a process that was taken over. It renames nothing itself.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from hpcbench.errors import WorkerError
from hpcbench.storage.file_modes import give_usual_modes
from hpcbench.storage.json_files import JsonObject, read_json, sync_folder
from hpcbench.storage.paths import MANIFEST, JobPaths


def flush(folder: Path) -> None:
    """Give the files of a folder their usual modes, and write them and its entries to disk."""
    give_usual_modes(folder)  # safetensors makes its files for this user alone, and colleagues evaluate them
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    # A rename may reach the disk before the contents of the files.
    sync_folder(folder)


def check_claim(job: JobPaths, token: str | None, *, what: str = "checkpoint") -> None:
    """Raise where another process has claimed the job; without a token nothing is claimed.

    Raises:
        WorkerError: it has.
    """
    if token is None:
        return
    claim = None
    # After a node failure the old process may still be running.
    for pause_s in (0.0, 0.5, 2.0):
        time.sleep(pause_s)
        claim = read_json(job.claim)
        if claim is not None:
            break
    if claim is None or claim.get("token") != token:
        problem = "no longer claimed" if claim is None else "claimed by another process now"
        raise WorkerError(f"the job is {problem}; this process may not write its {what}")


def find_damage(folder: Path, manifest: JsonObject) -> str | None:
    """Return which file of a folder is not as its manifest has it, or None where all are."""
    files = manifest.get("files")
    if not isinstance(files, dict):
        return f"{MANIFEST} lists no files"
    for name, num_bytes in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != num_bytes:
            return f"{name} has {path.stat().st_size} bytes instead of {num_bytes}"
    return None

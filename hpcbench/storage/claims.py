"""Claims: small JSON files that name the process which holds a suite, a job folder or the local queue.

In: the path of a claim. Out: its holder, whether that is gone, and the place freed or taken in one step that only one
process wins. Shared file systems do not lock files reliably, so a claim is created with `create_json`, touched by its
holder, and read again before something is put in place. Who may take over from whom is up to `submit/suite_claim.py`,
`job/job_claim.py` and `scheduler/local/runner_claim.py`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from hpcbench.processes.process_tree import ProcessIdentity, is_alive, is_here, this_process
from hpcbench.storage.clock import file_age_s
from hpcbench.storage.json_files import JsonObject, create_json, read_json, write_json


def holder_fields() -> JsonObject:
    """Return this process as the claims of suites and jobs name their holder."""
    process = this_process()
    return {"host": process.host, "pid": process.pid, "process_start": process.start_ticks}


def holder_of(claim: Mapping[str, object] | None) -> ProcessIdentity | None:
    """Return the process that a claim names, or None when it names none."""
    if claim is None:
        return None
    try:
        if "process" in claim:
            return ProcessIdentity.model_validate(claim["process"])
        fields = {"host": claim.get("host"), "pid": claim.get("pid"), "start_ticks": claim.get("process_start")}
        return ProcessIdentity.model_validate(fields)
    except ValidationError:
        return None


def is_abandoned(path: Path, holder: ProcessIdentity | None, *, silence_s: float) -> bool:
    """Return whether a claim's holder is gone.

    A process of this host is gone when it has ended. Of one on another host, and of a claim that cannot be read, only
    the time since the file was touched is known, by the file server's clock.
    """
    if holder is not None and is_here(holder):
        return not is_alive(holder)
    age_s = file_age_s(path)
    return age_s is not None and age_s > silence_s


def drop_claim(path: Path, seen: Mapping[str, object] | None) -> bool:
    """Remove a claim if it is still the one that was seen; return False where another has taken its place."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.dropped")
    try:
        # rename(2) has one winner, and what was really taken away can be read afterwards.
        path.rename(aside)
    except FileNotFoundError:
        return True
    found = read_json(aside)
    is_foreign = found is not None and found != seen
    if is_foreign:
        # Put back, unless the place was claimed once more in between.
        create_json(path, found)
    aside.unlink(missing_ok=True)
    return not is_foreign


def replace_claim(path: Path, value: JsonObject) -> bool:
    """Write over a claim; return whether it is this one's: of two that do so at once, the last writer has it."""
    write_json(path, value)  # a rename: no file lock, which NFS servers may not have
    return read_json(path) == value

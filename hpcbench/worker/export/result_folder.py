"""A folder that is either whole or not there: written beside its place, then renamed into it, never onto another.

In: where it shall be, and the job that makes it. Out: the folder with a manifest of its files and of what its maker
noted. It removes only what this very job and configuration began, by the name of the staging folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcbench.errors import WorkerError
from hpcbench.storage.json_files import JsonObject, read_json, sync_folder, write_json
from hpcbench.storage.paths import MANIFEST, JobPaths
from hpcbench.worker.placing import check_claim, find_damage, flush

_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFolder:
    """One folder that a job makes."""

    place: Path
    job: JobPaths
    fingerprint: str
    """Only a folder of this configuration is taken for made."""
    token: str | None
    """The claim's token, or None where nothing is claimed."""

    @property
    def staging(self) -> Path:
        """Where the folder is written; in the same parent, so that one rename puts it in place."""
        return self.place.with_name(f".{self.place.name}.{self.fingerprint[:_DIGITS]}")

    def find_made(self) -> JsonObject | None:
        """Return what was noted of the folder where this job has made it before, or None where nothing is there.

        Raises:
            WorkerError: another folder or file is there, or files of this one are gone.
        """
        if not self.place.exists() and not self.place.is_symlink():
            return None
        manifest = read_json(self.place / MANIFEST) if self.place.is_dir() else None
        if manifest is None or manifest.get("fingerprint") != self.fingerprint:
            raise WorkerError(
                f"output_dir: {self.place} exists already, and this job has not made it; nothing was written",
                hint="name a folder that does not exist yet, or move that one away",
            )
        damage = find_damage(self.place, manifest)
        if damage is not None:
            raise WorkerError(
                f"{self.place}: this job made it before, and it has changed since: {damage}",
                hint=f"remove {self.place} to have it made again",
            )
        notes = manifest.get("notes")
        return notes if isinstance(notes, dict) else {}

    def begin(self) -> Path:
        """Return the empty staging folder, without what a killed attempt left in it.

        Raises:
            WorkerError: nothing can be written there.
        """
        shutil.rmtree(self.staging, ignore_errors=True)
        try:
            self.staging.mkdir(parents=True)
        except OSError as error:
            raise WorkerError(
                f"output_dir: {self.staging} cannot be made: {error.strerror}",
                hint="name a folder below one that you may write to",
            ) from error
        return self.staging

    def finish(self, notes: Mapping[str, Any]) -> None:
        """Put the staged folder in place, with a manifest of its files.

        Raises:
            WorkerError: another process has claimed the job, or made the folder meanwhile.
        """
        files = {
            str(path.relative_to(self.staging)): path.stat().st_size
            for path in sorted(self.staging.rglob("*"))
            if path.is_file()
        }
        manifest = {"schema_version": 1, "fingerprint": self.fingerprint, "files": files, "notes": dict(notes)}
        write_json(self.staging / MANIFEST, manifest)
        flush(self.staging)
        check_claim(self.job, self.token, what="model")
        # rename(2) replaces an empty folder, which may be somebody's.
        if self.place.exists():
            raise WorkerError(
                f"output_dir: {self.place} was made by another process meanwhile", hint="name another folder"
            )
        self.staging.rename(self.place)
        sync_folder(self.place.parent)

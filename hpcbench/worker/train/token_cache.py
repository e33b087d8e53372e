"""Tokenized rows that all ranks and attempts of a training share, and all trainings of the same data.

In: a folder for entries, the ranks, what tokenizes. Out: `Tokenized`, made by one rank and mapped into memory by all.
An entry is named by the hash of its key, is put in place by a rename, and is checked whole before it is used; one that
is damaged is made anew, and one that nobody used for a month is removed. It decides nothing about rows, and starts no
process group: ranks wait for the one that tokenizes as long as that takes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol

from hpcbench.errors import WorkerError
from hpcbench.schemas import variables
from hpcbench.storage.hash_cache import hash_file
from hpcbench.storage.json_files import JsonObject, read_json
from hpcbench.worker.data.encoded import Encoded
from hpcbench.worker.data.token_files import StoredRows, write_rows
from hpcbench.worker.measure.rouge import Prompt
from hpcbench.worker.ranks import Ranks
from hpcbench.worker.signals import StopRequestedError
from hpcbench.worker.train.token_key import hash_key
from hpcbench.worker.train.tokenized import Counts, Tokenized

logger = logging.getLogger(__name__)

UNUSED_S: Final = 30 * 86400.0
"""Longer than any job runs: a file that vanishes on a network file system would kill those that have mapped it."""
LEFTOVER_S: Final = 7 * 86400.0
"""After so long an entry that is still being written was left behind by a job that was killed."""
_META: Final = "entry.json"
_TRAIN: Final = "train.arrow"
_VALIDATION: Final = "validation.arrow"
_PROMPTS: Final = "prompts.arrow"
_REFERENCES: Final = "references.json"
_STAGING: Final = (".tmp", ".damaged")
"""How the names of folders end that are being written, or make room."""
_TOPIC: Final = "hpcbench/tokens"
_STOPPED: Final = "stopped"
_NOT_KEPT: Final = "not kept"
_HINT: Final = "set tokenized_data: node in the cluster profile where nodes do not see each other's files at once"


class Tokenize(Protocol):
    """Makes the rows; it may leave when a stop is asked for where all ranks hear of that."""

    def __call__(self, *, may_leave: bool) -> Tokenized:
        """Return them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCache:
    """Where entries are, and who makes them."""

    folder: Path
    is_per_node: bool = False
    """Whether each node has a folder of its own, so that one rank of each tokenizes."""

    @classmethod
    def from_environment(cls) -> TokenCache | None:
        """Return the cache that the supervisor names, or None where it names none."""
        named = os.environ.get(variables.TOKENIZED_DATA)
        if not named:
            return None
        return cls(folder=Path(named), is_per_node=os.environ.get(variables.TOKENIZED_DATA_PER_NODE) == "1")

    def makes(self, ranks: Ranks) -> bool:
        """Return whether this rank is the one that tokenizes."""
        # Not by the local rank: ranks with several GPUs each compute on the first that they see, and it is 0 for all.
        num_local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return ranks.rank % num_local == 0 if self.is_per_node else ranks.is_first

    def load(
        self,
        find_key: Callable[[], JsonObject | None],
        tokenize: Tokenize,
        ranks: Ranks,
    ) -> Tokenized:
        """Return the rows: kept ones, those that another rank makes, or new ones.

        Args:
            find_key: returns what decides the rows; None has every rank tokenize for itself.
            tokenize: makes the rows.
            ranks: this process among them.

        Raises:
            WorkerError: the rows cannot be made.
            StopRequestedError: a stop was asked for meanwhile.
        """
        topic = f"{_TOPIC}/{os.environ.get('GROUP_RANK', '0') if self.is_per_node else 'all'}"
        if not self.makes(ranks):
            heard = ranks.hear(topic)
            if heard == _STOPPED:
                raise StopRequestedError("stopped before training started")
            return tokenize(may_leave=False) if heard == _NOT_KEPT else _read_entry(Path(heard))
        if (key := find_key()) is None:
            ranks.announce(topic, _NOT_KEPT)
            return tokenize(may_leave=ranks.is_alone)
        try:
            entry, found = self._find_or_make(key, lambda: tokenize(may_leave=ranks.is_alone or not self.is_per_node))
        except StopRequestedError:
            ranks.announce(topic, _STOPPED)
            raise
        ranks.announce(topic, _NOT_KEPT if entry is None else str(entry))
        return found

    def _find_or_make(self, key: JsonObject, tokenize: Callable[[], Tokenized]) -> tuple[Path | None, Tokenized]:
        """Return an entry and its rows; without an entry where none can be written."""
        if self._is_anothers():
            logger.warning("tokens: %s belongs to another user; each rank tokenizes", self.folder)
            return None, tokenize()
        entry = self.folder / hash_key(key)
        if _is_whole(entry, key):
            logger.info("tokens: found in %s", entry)
            _note_use(entry)
            return entry, _read_entry(entry)
        made = tokenize()
        try:
            self._keep(entry, key, made)
            return entry, _read_entry(entry)
        except OSError as error:
            logger.warning("tokens: not kept in %s: %s; each rank tokenizes", self.folder, error)
            return None, made

    def _is_anothers(self) -> bool:
        """Return whether another user made the folder, or a link in its place, on a disk where everybody may."""
        with contextlib.suppress(FileNotFoundError):
            return self.is_per_node and self.folder.lstat().st_uid != os.getuid()
        return False

    def _keep(self, entry: Path, key: JsonObject, made: Tokenized) -> None:
        """Write an entry and put it in place.

        Raises:
            OSError: it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700 if self.is_per_node else 0o777)
        if self._is_anothers():
            raise PermissionError(f"{self.folder} belongs to another user")
        made_by = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
        staging = self.folder / f".{entry.name}.{made_by}{_STAGING[0]}"
        staging.mkdir()
        try:
            # The file server's clock, which also dates the entries.
            _remove_unused(self.folder, now=staging.stat().st_mtime)
            _write_entry(staging, key, made)
            _put_in_place(staging, entry, key)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        logger.info("tokens: kept in %s", entry)


def _remove_unused(folder: Path, *, now: float) -> None:
    for entry in folder.iterdir():
        is_leftover = entry.name.startswith(".") and entry.name.endswith(_STAGING)
        with contextlib.suppress(OSError):
            used_at = (entry if is_leftover else entry / _META).stat().st_mtime
            if now - used_at > (LEFTOVER_S if is_leftover else UNUSED_S):
                logger.info("tokens: %s: not used for %.0f days, removed", entry, (now - used_at) / 86400)
                shutil.rmtree(entry, ignore_errors=True)


def _put_in_place(staging: Path, entry: Path, key: JsonObject) -> None:
    """Rename a whole entry to its name, unless another job was first; a damaged one makes room."""
    with contextlib.suppress(OSError):
        staging.rename(entry)  # fails where there is a folder with files
        return
    if _is_whole(entry, key):
        return
    damaged = entry.with_name(f"{staging.name}{_STAGING[1]}")
    entry.rename(damaged)
    staging.rename(entry)
    shutil.rmtree(damaged, ignore_errors=True)


def _write_entry(folder: Path, key: JsonObject, made: Tokenized) -> None:
    prompts = [Encoded(input_ids=prompt.input_ids, labels=(), images=prompt.images) for prompt in made.prompts]
    files = {_TRAIN: made.train, _VALIDATION: made.validation, _PROMPTS: prompts}
    for name, rows in files.items():
        write_rows(folder / name, rows)
    _write_plain(folder / _REFERENCES, [prompt.reference for prompt in made.prompts])
    meta = {
        "key": key,
        "counts": asdict(made.counts),
        "files": {name: hash_file(folder / name) for name in (*files, _REFERENCES)},
        "images": _find_states(_image_files(row for rows in files.values() for row in rows)),
    }
    _write_plain(folder / _META, meta)


def _is_whole(entry: Path, key: JsonObject) -> bool:
    """Return whether an entry is there, whole and of this key, and its images are as they were."""
    meta = read_json(entry / _META)
    if meta is None:
        return False
    try:
        if meta["key"] != key:
            return False
        for name, expected in meta["files"].items():
            if hash_file(entry / name) != expected:
                logger.warning("tokens: %s is damaged; tokenizing again", entry / name)
                return False
        # The tokens of an image depend on its size.
        return bool(_find_states(Path(name) for name in meta["images"]) == meta["images"])
    except (OSError, KeyError, TypeError, AttributeError):
        return False


def _read_entry(entry: Path) -> Tokenized:
    """Map the rows of an entry that was found whole."""
    meta = read_json(entry / _META)
    if meta is None:
        raise WorkerError(f"tokens: {entry / _META} cannot be read on this node", hint=_HINT)
    counts = meta["counts"]
    train = StoredRows(entry / _TRAIN)
    references = json.loads((entry / _REFERENCES).read_bytes())
    rows = StoredRows(entry / _PROMPTS)
    return Tokenized(
        train=train,
        lengths=train.lengths(),
        validation=StoredRows(entry / _VALIDATION),
        prompts=tuple(
            Prompt(input_ids=tuple(row.input_ids), reference=reference, images=row.images)
            for row, reference in zip(rows, references, strict=True)
        ),
        counts=Counts(**{**counts, "notes": tuple(counts["notes"])}),
    )


def _note_use(entry: Path) -> None:
    with contextlib.suppress(OSError):  # another user's
        os.utime(entry / _META)


def _image_files(rows: Iterable[Encoded]) -> Iterator[Path]:
    for row in rows:
        for image in (*row.images, *(row.rejected.images if row.rejected is not None else ())):
            if image.path is not None:
                yield image.path


def _find_states(files: Iterable[Path]) -> dict[str, list[int]]:
    """Return size and time of each file; a later image under its name has another."""
    found = {}
    for file in files:
        if (name := str(file)) not in found:
            state = file.stat()
            found[name] = [state.st_size, state.st_mtime_ns]
    return found


def _write_plain(file: Path, value: object) -> None:
    # Escaped, since a text may hold half a surrogate pair.
    file.write_text(json.dumps(value), encoding="ascii")

"""The one door through which JSON reaches and leaves the disk.

In: a path, or a value of plain types. Out: a value, or a file that is either the old or the new one, never half of
each. It must never raise on a file that somebody else is writing or has broken: such a file is "not there yet".
"""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, cast

from pydantic_core import from_json

logger = logging.getLogger(__name__)

JsonObject = dict[str, Any]

NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""What link(2) gives where a file system has no hard links (some of FUSE, SMB and BeeGFS)."""


def dump_json(value: object) -> str:
    """Return canonical JSON text: sorted keys, two spaces, a final newline.

    Raises:
        ValueError: the value holds NaN or Infinity, which no record may.
    """
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: object, *, sync: bool = True) -> None:
    """Replace `path` with the JSON of `value` in one step (temporary file, fsync, rename).

    Args:
        path: file to write; its folder is made when missing.
        value: plain JSON types.
        sync: whether to fsync file and folder; False for files that are rewritten every few seconds.
    """
    write_text(path, dump_json(value), sync=sync)


def write_text(path: Path, text: str, *, sync: bool = True) -> None:
    """Replace `path` with `text` in one step; see `write_json`."""
    write_bytes(path, text.encode(), sync=sync)


def write_bytes(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Replace `path` with `content` in one step; see `write_json`."""
    _write_parts(path, (content,), sync=sync)


def write_text_parts(path: Path, parts: Iterable[str]) -> None:
    """Replace `path` with a text of hundreds of megabytes, written as it is made; see `write_json`."""
    _write_parts(path, (part.encode() for part in parts), sync=True)


def _write_parts(path: Path, parts: Iterable[bytes], *, sync: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with staging.open("wb") as stream:
            stream.writelines(parts)
            stream.flush()
            if sync:
                os.fsync(stream.fileno())  # before the rename, else a crash may leave an empty file under the name
        staging.replace(path)  # in the same folder: rename(2) is one step within a file system only
    except OSError as error:
        staging.unlink(missing_ok=True)
        raise _naming(path, error) from error
    except BaseException:
        staging.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)


def _naming(path: Path, error: OSError) -> OSError:
    """Return the error with the file that was to be written instead of the temporary one."""
    return OSError(error.errno, error.strerror, str(path))


def create_json(path: Path, value: object) -> bool:
    """Create `path` with the JSON of `value` unless it is there already; return whether it was created.

    The whole text is linked into place in one step, so two writers never both succeed and readers never see half of it.
    Where there are no hard links the file is made with O_EXCL: still one writer succeeds, but for a moment, or
    always if that writer dies, readers see a file that is "not there yet".
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    text = dump_json(value)
    try:
        try:
            with staging.open("w", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise _naming(path, error) from error
        try:
            os.link(staging, path)
        except OSError as error:
            if error.errno in NO_LINKS:
                return _create_exclusively(path, text)
            # NFS sends a request again whose answer was lost, and then finds its own link there: open(2), O_EXCL.
            if _count_links(staging) != 2:  # noqa: PLR2004  # its own name and the one that was asked for
                if isinstance(error, FileExistsError):
                    return False
                raise
    finally:
        staging.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def _count_links(path: Path) -> int:
    """Return how many names a file has; opening it makes a network file system look anew."""
    with path.open("rb") as stream:
        return os.fstat(stream.fileno()).st_nlink


def _create_exclusively(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8", newline="\n") as stream:
            mine = os.fstat(stream.fileno()).st_ino
            try:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            except BaseException:
                path.unlink(missing_ok=True)
                raise
    except FileExistsError:
        return False
    sync_folder(path.parent)
    try:
        # Who is slow to write may have been taken for dead, and its file replaced.
        return path.stat().st_ino == mine
    except FileNotFoundError:
        return False


def links_work(folder: Path) -> bool:
    """Try whether files in a folder can be given a second name, which `create_json` does without but better with.

    Raises:
        OSError: no file can be written there.
    """
    first = folder / f".link.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    second = first.with_suffix(".second")
    first.touch()
    try:
        os.link(first, second)
    except OSError as error:
        if error.errno in NO_LINKS:
            return False
        raise
    finally:
        first.unlink(missing_ok=True)
        second.unlink(missing_ok=True)
    return True


class FileSignature(NamedTuple):
    """What differs between two contents of one path: no program can set back when its inode changed last."""

    inode: int
    num_bytes: int
    mtime_ns: int
    ctime_ns: int


def signature_of(path: str | Path) -> FileSignature | None:
    """Return the signature of what is at a path, or None when nothing is, or nothing that may be looked at."""
    try:
        return _signature(os.stat(path))  # noqa: PTH116  # of tens of thousands; a Path costs more than the call
    except OSError:
        return None


def _signature(found: os.stat_result) -> FileSignature:
    return FileSignature(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def read_json(path: Path) -> JsonObject | None:
    """Return the JSON object in `path`, or None when it is missing, unreadable or not an object.

    A file that is there but cannot be used is logged, so that no run disappears in silence.
    """
    found = read_signed_json(path)
    return None if found is None else found[0]


def read_signed_json(path: str | Path) -> tuple[JsonObject, FileSignature] | None:
    """Return the JSON object in `path` with the signature of the file that it was read from; see `read_json`."""
    try:
        with open(path, "rb", buffering=0) as stream:  # noqa: PTH123  # twice as fast as Path.read_bytes
            signature = _signature(os.fstat(stream.fileno()))
            content = stream.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("%s: cannot be read (%s); treated as not there yet", path, error)
        return None
    try:
        value = _parse(content)
    except UnicodeDecodeError as error:
        logger.warning("%s: cannot be read (%s); treated as not there yet", path, error)
        return None
    except (ValueError, RecursionError) as error:
        logger.warning("%s: not valid JSON (%s); treated as not there yet", path, error)
        return None
    if not isinstance(value, dict):
        logger.warning("%s: holds no JSON object; treated as not there yet", path)
        return None
    return cast(JsonObject, value), signature


def _parse(content: bytes) -> object:
    """Return a JSON value; pydantic's parser needs a third of json's time, but refuses halves of surrogate pairs."""
    try:
        return from_json(content)
    except ValueError:
        return json.loads(content.decode("utf-8"))


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk where the file system can (some network file systems cannot)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        logger.debug("%s: folder cannot be synced: %s", folder, error)
    finally:
        os.close(descriptor)

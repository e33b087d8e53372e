"""The one door through which JSON reaches and leaves the disk.

In: a path, or a value of plain types. Out: a value, or a file that is either the old or the new one, never half of
each. It must never raise on a file that somebody else is writing or has broken: such a file is "not there yet".
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from pathlib import Path
from typing import Any, cast

logger = logging.getLogger(__name__)

JsonObject = dict[str, Any]


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
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with staging.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        staging.replace(path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)


def create_json(path: Path, value: object) -> bool:
    """Create `path` with the JSON of `value` unless it is there already; return whether it was created.

    The whole text is linked into place in one step, so two writers never both succeed and readers never see half of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with staging.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(dump_json(value))
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(staging, path)
        except FileExistsError:
            return False
    finally:
        staging.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def read_json(path: Path) -> JsonObject | None:
    """Return the JSON object in `path`, or None when it is missing, unreadable or not an object.

    A file that is there but cannot be used is logged, so that no run disappears in silence.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        logger.warning("%s: cannot be read (%s); treated as not there yet", path, error)
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        logger.warning("%s: not valid JSON (%s); treated as not there yet", path, error)
        return None
    if not isinstance(value, dict):
        logger.warning("%s: holds no JSON object; treated as not there yet", path)
        return None
    return cast(JsonObject, value)


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

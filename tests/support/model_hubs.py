"""Two model hubs in this process that answer downloads as huggingface.co and modelscope.cn do, from plain folders.

A hub's folder holds `models/OWNER/NAME/FILES` and `datasets/OWNER/NAME/FILES`. `download_environment` says what a
process needs so that huggingface_hub, datasets and modelscope ask these hubs and keep their caches apart. Uploads are
in `fake_hub.py`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT: Final = "1" * 40
"""The one revision of every repository."""
KINDS: Final = ("models", "datasets")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a hub says to one request: an object as JSON, the bytes of a file, or that there is nothing."""

    value: object = None
    file: Path | None = None
    error: str = "EntryNotFound"
    """Hugging Face's word for why there is nothing."""


NOTHING: Final = Answer()
NO_REPOSITORY: Final = Answer(error="RepoNotFound")


@dataclass
class DownloadHub:
    """One hub, with what it was asked."""

    root: Path
    url: str = ""
    asked: list[str] = field(default_factory=list)
    """Paths of all requests, without their queries."""

    def repository(self, kind: str, name: str) -> Path | None:
        """Return the folder of a repository, or None."""
        folder = self.root / kind / name
        return folder if name.count("/") == 1 and folder.is_dir() else None

    def answer(self, path: str, query: dict[str, str], body: bytes) -> Answer:
        """Return the answer to one request."""
        raise NotImplementedError


class HuggingFaceHub(DownloadHub):
    """The addresses that huggingface_hub and datasets call: information, listings, files."""

    def answer(self, path: str, query: dict[str, str], body: bytes) -> Answer:
        """Return the answer to one request."""
        kind, rest = "models", path.strip("/").split("/")
        if rest[0] == "api" and len(rest) > 3 and rest[1] in KINDS:
            kind, rest = rest[1], rest[2:]
            folder = self.repository(kind, "/".join(rest[:2]))
            return (
                NO_REPOSITORY if folder is None else self._inform(folder, rest[2:] or ["revision", "main"], query, body)
            )
        if rest[0] in KINDS:
            kind, rest = rest[0], rest[1:]
        folder = self.repository(kind, "/".join(rest[:2]))
        if folder is None or len(rest) < 5 or rest[2] != "resolve":
            return NO_REPOSITORY
        return Answer(file=folder.joinpath(*rest[4:]))

    def _inform(self, folder: Path, rest: list[str], query: dict[str, str], body: bytes) -> Answer:
        what, inside = rest[0], folder.joinpath(*rest[2:])
        if what == "revision":
            siblings = [{"rfilename": name} for name in list_files(folder)]
            name = "/".join(folder.parts[-2:])
            return Answer(
                {"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": [], "downloads": 0}
            )
        if what == "tree" and inside.is_dir():
            is_recursive = query.get("recursive", "").lower() in {"true", "1"}
            found = sorted(inside.rglob("*") if is_recursive else inside.iterdir())
            return Answer([_describe(folder, path) for path in found])
        if what == "paths-info":
            names = parse_qs(body.decode()).get("paths") or json.loads(body)["paths"]
            return Answer([_describe(folder, folder / name) for name in names if (folder / name).exists()])
        return NOTHING


class ModelScopeHub(DownloadHub):
    """The addresses that modelscope calls: whether a repository is there, its listing, its files."""

    def answer(self, path: str, query: dict[str, str], body: bytes) -> Answer:  # noqa: ARG002  # no request has one
        """Return the answer to one request."""
        rest = path.strip("/").split("/")
        if rest[:2] != ["api", "v1"] or len(rest) < 5 or rest[2] not in KINDS:
            return NOTHING
        folder = self.repository(rest[2], "/".join(rest[3:5]))
        if folder is None:
            return NOTHING
        match rest[5:]:
            case []:
                return Answer(_success({"Id": 1, "Name": rest[4]}))
            case ["repo", "files" | "tree"]:
                names = list_files(folder) if query.get("PageNumber", "1") == "1" else []
                return Answer(_success({"Files": [self._entry(folder, name) for name in names]}))
            case ["repo"]:
                return Answer(file=folder / query["FilePath"])
            case ["revisions"]:
                return Answer(_success({"RevisionMap": {"Branches": [{"Revision": "master"}], "Tags": []}}))
            case _:
                return NOTHING

    def _entry(self, folder: Path, name: str) -> dict[str, Any]:
        data = (folder / name).read_bytes()
        size, digest = len(data), hashlib.sha256(data).hexdigest()
        return {
            "Path": name,
            "Name": Path(name).name,
            "Type": "blob",
            "Size": size,
            "Sha256": digest,
            "Revision": COMMIT,
        }


def list_files(folder: Path) -> list[str]:
    """Return the paths of all files of a repository, relative and sorted."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def _describe(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": COMMIT}
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": _etag(path)}


def _etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()


def _success(data: object) -> dict[str, object]:
    return {"Code": 200, "Success": True, "Message": "success", "Data": data}


@contextmanager
def open_hubs(root: Path) -> Iterator[tuple[HuggingFaceHub, ModelScopeHub]]:
    """Serve `root/huggingface` and `root/modelscope` until the block ends."""
    huggingface, modelscope = HuggingFaceHub(root / "huggingface"), ModelScopeHub(root / "modelscope")
    with _serve(huggingface), _serve(modelscope):
        yield huggingface, modelscope


def download_environment(
    huggingface: DownloadHub, modelscope: DownloadHub, caches: Path, *, offline: bool = False
) -> dict[str, str]:
    """Return the variables with which a process downloads from the two hubs, or with `offline` only reads the caches."""
    switches = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE")
    return {
        "HF_ENDPOINT": huggingface.url,
        "HF_HOME": str(caches / "huggingface"),
        "MODELSCOPE_ENDPOINT": modelscope.url,
        "MODELSCOPE_CACHE": str(caches / "modelscope"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        **dict.fromkeys(switches, "1" if offline else "0"),
    }


@contextmanager
def _serve(hub: DownloadHub) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            hub.asked.append(parts.path)
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            answer = hub.answer(unquote(parts.path), query, body)
            found = answer.file is not None and answer.file.is_file() and hub.root in answer.file.resolve().parents
            if answer.file is not None and found:
                data = answer.file.read_bytes()
                headers = {"ETag": f'"{_etag(answer.file)}"', "X-Repo-Commit": COMMIT}
            elif answer.value is not None:
                data, headers = json.dumps(answer.value).encode(), {"Content-Type": "application/json"}
            else:
                data = json.dumps({"error": answer.error}).encode()
                headers = {"Content-Type": "application/json", "X-Error-Code": answer.error}
            self.send_response(HTTPStatus.OK if found or answer.value is not None else HTTPStatus.NOT_FOUND)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_POST = do_HEAD = _respond  # noqa: N815  # http.server's names

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

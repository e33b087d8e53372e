"""A model hub in this process: the few addresses of Hugging Face's that a push calls."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OWNER = "somebody"


@dataclass
class Hub:
    """What the hub holds and was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    """Of the one repository, by path."""
    created: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    blobs: dict[str, bytes] = field(default_factory=dict)
    """Uploaded large files by SHA-256."""

    def answer(self, method: str, path: str, body: bytes) -> Any:  # noqa: PLR0911  # one per address
        """Return the answer to one request, or None where the address is not known."""
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            name = "/".join(filter(None, (self.created[-1].get("organization") or OWNER, self.created[-1]["name"])))
            return {"url": f"{self.url}/{name}", "name": name}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if "/preupload/" in path:
            return {"files": [self._mode(entry["path"]) for entry in json.loads(body)["files"]]}
        if path.endswith("/info/lfs/objects/batch"):
            return {"objects": [self._place(entry) for entry in json.loads(body)["objects"]]}
        if path.startswith("/blobs/"):
            self.blobs[path.rsplit("/", 1)[-1]] = body
            return {}
        if "/tree/" in path:
            return [
                {"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in self.files.items()
            ]
        if "/commit/" in path:
            return self._commit(body)
        if method == "GET" and path.startswith("/api/models/"):
            return {"id": path.split("/", 3)[3], "sha": "1" * 40, "siblings": [], "private": True}
        return None

    def _mode(self, path: str) -> dict[str, Any]:
        mode = "lfs" if path.endswith(".safetensors") else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}

    def _place(self, entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "actions": {"upload": {"href": f"{self.url}/blobs/{entry['oid']}", "header": {}}}}

    def _commit(self, body: bytes) -> dict[str, Any]:
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.files[value["path"]] = self.blobs[value["oid"]]
            elif entry["key"] == "deletedFile":
                del self.files[value["path"]]
        return {"success": True, "commitUrl": f"{self.url}/{OWNER}/x/commit/{'1' * 40}", "commitOid": "1" * 40}


@contextmanager
def open_hub() -> Iterator[Hub]:
    """Serve a hub until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.tokens.add(self.headers.get("Authorization", ""))
            value = hub.answer(self.command, self.path.split("?")[0], body)
            data = json.dumps({"error": f"unknown: {self.path}"} if value is None else value).encode()
            self.send_response(404 if value is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_HEAD = _respond  # noqa: N815  # http.server's names

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

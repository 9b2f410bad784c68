"""A Hugging Face hub on 127.0.0.1: the parts of its HTTP interface that huggingface_hub and datasets use.

    with Hub() as hub:
        hub.add("openai/gsm8k", {"main/train-00000-of-00001.parquet": parquet(rows)})
        hub.faults.append(Fault("GET", "train", cut))

Large files (all but .md and .json) are served as the real hub does it: `resolve` answers with a redirect to
another host, carrying the checksum and the commit, and that host serves ranges.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

Answer = Callable[["Handler", bytes], None]


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of a method whose path contains `path`."""

    method: str
    path: str
    answer: Answer
    times: int = 1


@dataclass
class Repository:
    files: dict[str, bytes]

    @property
    def commit(self) -> str:
        digest = hashlib.sha1()
        for name, data in sorted(self.files.items()):
            digest.update(name.encode() + b"\0" + data)
        return digest.hexdigest()


def is_large(name: str) -> bool:
    return not name.endswith((".md", ".json", ".txt"))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def parquet(rows: list[dict[str, Any]], row_group_size: int = 64) -> bytes:
    """The rows as the hub stores them."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, compression="zstd", row_group_size=row_group_size)
    return file.getvalue()


class Hub:
    """The server, its repositories, the requests that it saw, and what is to go wrong."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.extra: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str]] = []  # method, path, Range
        self.faults: list[Fault] = []
        self.release = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("_Handler", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()

    def add(self, repo: str, files: dict[str, bytes], kind: str = "dataset") -> None:
        self.repositories[kind, repo] = Repository(files)

    def fetched(self, part: str) -> list[tuple[str, str, str]]:
        """The downloads so far of paths with `part` in them: `GET`s at the storage host, and of small files."""
        return [
            request
            for request in self.requests
            if request[0] == "GET" and part in request[1] and "/api/" not in request[1]
        ]


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        for fault in self.hub.faults:
            if fault.method == self.command and fault.path in path:
                fault.times -= 1
                if fault.times <= 0:
                    self.hub.faults.remove(fault)
                return fault.answer(self, self._stored(path))
        if path.startswith("/api/"):
            return self._api(path, parse_qs(url.query), body)
        if path.startswith("/storage/"):
            return self.send(self._stored(path), ranges=True)
        if path in self.hub.extra:
            data = self.hub.extra[path]
            return self.send(data, headers={"ETag": f'"{hashlib.md5(data).hexdigest()}"'})
        self._resolve(path)

    def _stored(self, path: str) -> bytes:
        """The content that a storage or resolve path names; empty for others."""
        for (kind, repo), repository in self.hub.repositories.items():
            for name, data in repository.files.items():
                if path.startswith(f"/storage/{kind}/{repo}/") and path.endswith(f"/{name}"):
                    return data
        return self.hub.extra.get(path, b"")

    def _resolve(self, path: str) -> None:
        match = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if match is None:
            return self.send(b"", 404)
        kind = "dataset" if match[1] else "model"
        repository = self.hub.repositories.get((kind, match[2]))
        if repository is None:
            return self.send(b"", 404, {"X-Error-Code": "RepoNotFound"})
        commit = repository.commit
        if match[3] not in ("main", commit):
            return self.send(b"", 404, {"X-Error-Code": "RevisionNotFound"})
        headers = {"X-Repo-Commit": commit}
        data = repository.files.get(match[4])
        if data is None:
            return self.send(b"", 404, {**headers, "X-Error-Code": "EntryNotFound"})
        if not is_large(match[4]):
            return self.send(data, headers={**headers, "ETag": f'"{git_sha(data)}"'}, ranges=True)
        headers |= {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))}
        # "localhost" is another host than "127.0.0.1": huggingface_hub must not send its login there.
        headers["Location"] = f"http://localhost:{self.hub.port}/storage/{kind}/{match[2]}/{match[4]}"
        self.send(b"", 302, headers)

    def _api(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        match = re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(.*))?", path)
        repository = self.hub.repositories.get((match[1], match[2])) if match else None
        if match is None or repository is None:
            return self.send(b"", 404, {"X-Error-Code": "RepoNotFound"})
        what, _, rest = (match[3] or "revision").partition("/")
        revision, _, folder = rest.partition("/")
        if revision not in ("", "main", repository.commit):
            return self.send(b"", 404, {"X-Error-Code": "RevisionNotFound"})
        if what == "tree":
            return self._json(
                entries(
                    repository,
                    folder,
                    recursive="True" in query.get("recursive", []) or "true" in query.get("recursive", []),
                )
            )
        if what == "paths-info":
            wanted = json.loads(body)["paths"] if body[:1] == b"{" else parse_qs(body.decode())["paths"]
            return self._json([one for one in entries(repository, "", True) if one["path"] in wanted])
        if what != "revision":
            return self.send(b"", 404)
        siblings: list[dict[str, Any]] = [{"rfilename": name} for name in repository.files]
        if "blobs" in query:
            siblings = [described(name, data) for name, data in repository.files.items()]
        self._json(
            {"id": match[2], "sha": repository.commit, "private": False, "gated": False, "siblings": siblings}
        )

    def _json(self, content: Any) -> None:
        self.send(json.dumps(content).encode(), headers={"Content-Type": "application/json"})

    def send(
        self, data: bytes, status: int = 200, headers: dict[str, str] | None = None, *, ranges: bool = False
    ) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if ranges else None
        headers = dict(headers or {})
        if asked:
            start = int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            status, data = 206, data[start:]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def described(name: str, data: bytes) -> dict[str, Any]:
    """A file as `?blobs=true` tells of it."""
    entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git_sha(data)}
    if is_large(name):
        entry["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 130}
    return entry


def entries(repository: Repository, folder: str, recursive: bool) -> list[dict[str, Any]]:
    """Files and folders below `folder`, as the tree of a repository lists them."""
    found: dict[str, dict[str, Any]] = {}
    for name, data in repository.files.items():
        if folder and not name.startswith(f"{folder}/"):
            continue
        parts = name.split("/")
        depth = folder.count("/") + 1 if folder else 0
        for end in range(depth + 1, len(parts)):
            path = "/".join(parts[:end])
            if recursive or end == depth + 1:
                found[path] = {"type": "directory", "path": path, "oid": git_sha(path.encode()), "size": 0}
        if recursive or len(parts) == depth + 1:
            found[name] = {"type": "file", "path": name, "size": len(data), "oid": git_sha(data)}
            if is_large(name):
                found[name]["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 130}
    return list(found.values())


def cut(handler: Handler, data: bytes) -> None:
    """Promise all of what was asked for, send half of it, and hang up."""
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    data = data[int(asked[1]) if asked else 0 :]
    handler.send_response(206 if asked else 200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    handler.wfile.flush()
    handler.close_connection = True


def wrong(handler: Handler, data: bytes) -> None:
    """As many bytes as promised, one of them changed."""
    middle = len(data) // 2
    handler.send(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])


def hang(handler: Handler, data: bytes) -> None:
    """Send half, then nothing more until the hub is told to `release`."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    handler.wfile.flush()
    handler.hub.release.wait(60)
    handler.close_connection = True


def slow(handler: Handler, data: bytes) -> None:
    """Everything, but only after the hub was told to `release`."""
    handler.hub.release.wait(60)
    handler.send(data)


def status(code: int, **headers: str) -> Answer:
    """An answer without content."""

    def answer(handler: Handler, data: bytes) -> None:
        handler.send(b"", code, {name.replace("_", "-"): value for name, value in headers.items()})

    return answer

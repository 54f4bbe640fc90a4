"""A small stand-in for the hub, on this machine: the part of its interface by which models and data sets are fetched.

It answers as the hub does to whoever fetches: metadata in the headers of ``HEAD /<repository>/resolve/<revision>/<file>``
(``X-Repo-Commit``, ``ETag``, and for large files ``X-Linked-Etag``, ``X-Linked-Size`` and a ``Location`` on another host, the
CDN, which takes ranges and must see no token), ``/api/models`` and ``/api/datasets`` with ``tree`` in pages and ``paths-info``,
and errors with their ``X-Error-Code`` and ``X-Error-Message``. Files are sent by plain HTTP, without Xet. What comes to the hub
is in ``writes.py``.

Faults are ordered: ``hub.fault("GET .*parquet", status=503, times=2)``.
"""

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.writes import GOOD_TOKEN, LARGE, READ_TOKEN, Writes, front_of

_INVALID = "Invalid credentials in Authorization header"
_PAGE = 2  # entries of a tree


@dataclass
class Stored:
    """A repository: its files, who may read them, the commit that ``main`` is, and the files of earlier ones."""

    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    commit: str = ""
    past: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def change(self, files: dict[str, bytes]) -> str:
        """A new commit with these files instead of those of the same names; returns it."""
        self.past[self.commit] = self.files
        self.files = {**self.files, **files}
        self.__post_init__()
        return self.commit

    def at(self, revision: str) -> "Stored | None":
        """The repository as it was at a revision."""
        if revision in ("main", self.commit):
            return self
        return Stored(self.past[revision], self.gated, self.private) if revision in self.past else None

    def __post_init__(self) -> None:
        digest = hashlib.sha1()
        for name, content in sorted(self.files.items()):
            digest.update(name.encode() + content)
        self.commit = digest.hexdigest()


@dataclass
class Fault:
    """What happens to the next ``times`` requests whose ``METHOD path`` is matched.

    ``status`` answers with an error; ``reset`` breaks the connection after that many bytes of the file; ``stall`` says nothing for
    that many seconds; ``slowly`` sends the file in that many parts, a second apart.
    """

    match: str
    status: int | None = None
    reset: int | None = None
    stall: float | None = None
    slowly: int | None = None
    times: int = 10**6
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    """A request: what was asked, whether a token came along, and the bytes of the body that were sent."""

    what: str
    signed: bool
    range: str | None
    sent: int = 0


class Hub:
    """The hub and its CDN, on two ports of this machine."""

    def __init__(self) -> None:
        self.stored: dict[str, Stored] = {}  # "timm/…", "datasets/uoft-cs/…"
        self.blobs: dict[str, bytes] = {}  # the content of large files by their SHA-256
        self.refused: list[dict[str, Any]] = []  # what cards said that the hub does not take
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.ended = threading.Event()
        self._servers = [
            ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self})) for _ in range(2)
        ]
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_port}"

    @property
    def cdn(self) -> str:
        return f"http://localhost:{self._servers[1].server_port}"

    def add(self, name: str, files: dict[str, bytes], **more: Any) -> Stored:
        """Store a repository: a model's name, or ``datasets/`` and a data set's."""
        self.stored[name] = Stored(files, **more)
        return self.stored[name]

    def fault(self, match: str, **what: Any) -> Fault:
        """Order a fault."""
        self.faults.append(Fault(match, **what))
        return self.faults[-1]

    def requests(self, match: str = "") -> list[Asked]:
        """The requests so far whose ``METHOD path`` is matched."""
        return [each for each in self.asked if re.search(match, each.what)]

    def sent(self, match: str = "") -> int:
        """The bytes of all answers to these requests."""
        return sum(each.sent for each in self.requests(match))

    def stop(self) -> None:
        """Hear nobody any more: connections are refused."""
        self.ended.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()


@contextmanager
def running() -> Iterator[Hub]:
    """A hub that stops at the end of the ``with`` block."""
    hub = Hub()
    try:
        yield hub
    finally:
        if not hub.ended.is_set():
            hub.stop()


@cache  # a file of 100 MB is asked for hundreds of times
def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@cache
def _sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


class _Handler(Writes, BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _body(self) -> bytes:
        """The body of the request, which comes in chunks if its length is not known beforehand."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self) -> None:
        token = self.headers.get("Authorization")
        self.record = Asked(f"{self.command} {unquote(self.path)}", token is not None, self.headers.get("Range"))
        self.hub.asked.append(self.record)
        self.fault = self._fault()
        body = self._body()
        if self.fault.stall is not None:
            self.hub.ended.wait(self.fault.stall)
        if self.hub.ended.is_set():  # a connection from before
            self._reset()
            return
        if self.fault.status is not None:
            self._error(self.fault.status, None, "", self.fault.headers)
        elif self.server is self.hub._servers[1]:
            self.put(self.path, body) if self.command == "PUT" else self._cdn()
        elif token not in (None, f"Bearer {GOOD_TOKEN}", f"Bearer {READ_TOKEN}"):
            self._error(401, None, _INVALID)
        else:
            self._route(urlsplit(self.path), body, signed=token is not None)

    def _fault(self) -> Fault:
        for fault in self.hub.faults:
            if fault.times and re.search(fault.match, self.record.what):
                fault.times -= 1
                return fault
        return Fault("")

    def _route(self, url: Any, body: bytes, signed: bool) -> None:
        path = unquote(url.path)
        if self.command == "POST" and self.wrote(path, body):
            return
        if found := re.fullmatch(r"/(?P<name>.+?)/resolve/(?P<revision>[^/]+)/(?P<file>.+)", path):
            stored = self._repository(found["name"], found["revision"], signed)
            if stored is not None:
                self._resolve(found["name"], stored, found["file"], signed)
        elif found := re.fullmatch(
            r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)(/(?P<what>tree|paths-info|revision)/(?P<revision>[^/]+)/?(?P<inside>.*))?",
            path,
        ):
            name = found["name"] if found["kind"] == "models" else f"datasets/{found['name']}"
            stored = self._repository(name, found["revision"] or "main", signed)
            if stored is None:
                return
            if found["what"] == "tree":
                self._tree(stored, found["inside"], parse_qs(url.query), url.path)
            elif found["what"] == "paths-info":
                asked = parse_qs(body.decode()).get("paths", [])
                self._json([_entry(file, content) for file, content in stored.files.items() if file in asked])
            else:
                self._json(_about(found["name"], stored))
        else:
            self._error(404, None, "Not found")

    def _repository(self, name: str, revision: str, signed: bool) -> Stored | None:
        """The repository; None after saying that there is none, or none for whoever asks without a token."""
        stored = self.hub.stored.get(name)
        if stored is None or (stored.private and not signed):
            if signed:
                self._error(404, "RepoNotFound", "Repository not found")
            else:
                self._error(401, None, "Invalid username or password.")
            return None
        found = stored.at(revision)
        if found is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    def _resolve(self, name: str, stored: Stored, file: str, signed: bool) -> None:
        if stored.gated:
            page = f"Access to {name} is restricted. You must have access to it and be authenticated to access it. Please log in."
            self._error(403 if signed else 401, "GatedRepo", page)
        elif file not in stored.files:
            self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": stored.commit})
        elif file.endswith(LARGE):
            content = stored.files[file]
            self.hub.blobs[_sha256(content)] = content
            self._send(
                302,
                b"Found. Redirecting",
                {
                    "X-Repo-Commit": stored.commit,
                    "X-Linked-Etag": f'"{_sha256(content)}"',
                    "X-Linked-Size": str(len(content)),
                    "ETag": f'"{_sha1(content)}"',
                    "Location": f"{self.hub.cdn}/{name}/{file}?signature=x&sha={_sha256(content)}",
                    "Accept-Ranges": "bytes",
                },
            )
        else:
            content = stored.files[file]
            self._send(200, content, {"X-Repo-Commit": stored.commit, "ETag": f'"{_sha1(content)}"'})

    def _cdn(self) -> None:
        name = parse_qs(urlsplit(self.path).query).get("sha", [""])[0]
        content = self.hub.blobs.get(name, b"")
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not name:
            self._error(404, None, "")
        elif asked is None:
            self._send(200, content, {"ETag": f'"{_sha256(content)}"', "Accept-Ranges": "bytes"})
        else:
            begin = int(asked[1]) if asked[1] else len(content) - int(asked[2])
            end = min(int(asked[2]) + 1, len(content)) if asked[1] and asked[2] else len(content)
            if begin >= len(content):
                self._error(416, None, "")
            else:
                self._send(206, content[begin:end], {"Content-Range": f"bytes {begin}-{end - 1}/{len(content)}"})

    def _tree(self, stored: Stored, inside: str, query: dict[str, list[str]], path: str) -> None:
        recursive = query.get("recursive", ["false"])[0].lower() == "true"
        under = f"{inside}/" if inside else ""
        entries: dict[str, dict[str, Any]] = {}
        for file, content in sorted(stored.files.items()):
            if not file.startswith(under):
                continue
            folder, _, rest = file.removeprefix(under).partition("/")
            if rest:
                entries[f"{under}{folder}"] = {
                    "type": "directory",
                    "oid": "0" * 40,
                    "size": 0,
                    "path": f"{under}{folder}",
                }
            if recursive or not rest:
                entries[file] = _entry(file, content)
        if inside and not entries:
            self._error(404, "EntryNotFound", f"{inside} does not exist on main")
            return
        begin = int(query.get("cursor", ["0"])[0])
        page, more = list(entries.values())[begin : begin + _PAGE], begin + _PAGE < len(entries)
        following = f"{self.hub.endpoint}{path}?recursive={recursive}&cursor={begin + _PAGE}"
        self._json(page, {"Link": f'<{following}>; rel="next"'} if more else {})

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _error(self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None) -> None:
        said = {"X-Error-Code": code} if code else {}
        said |= {"X-Error-Message": message} if message else {}
        body = json.dumps({"error": message}).encode() if message else b""
        self._send(status, body, {"Content-Type": "application/json", **said, **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "X-Request-Id": "Root=1-stand-in"}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        parts = self.fault.slowly or 1
        size = -(-len(body) // parts) or 1
        for begin in range(0, len(body), size):
            if begin:
                time.sleep(1)
            part = body[begin : begin + size]
            if self.fault.reset is not None:
                part = part[: self.fault.reset]
            self.wfile.write(part)
            self.record.sent += len(part)
            if self.fault.reset is not None:
                self._reset()
                return

    def _reset(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, ValueError):  # whoever asked is gone, or we are
            self.close_connection = True

    def finish(self) -> None:
        with suppress(OSError, ValueError):
            super().finish()


def _entry(file: str, content: bytes) -> dict[str, Any]:
    entry = {"type": "file", "oid": _sha1(content), "size": len(content), "path": file}
    if file.endswith(LARGE):
        entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 134}
    return entry


def _about(name: str, stored: Stored) -> dict[str, Any]:
    siblings = [{"rfilename": file} for file in sorted(stored.files)]
    return {
        "_id": "0",
        "id": name,
        "sha": stored.commit,
        "private": stored.private,
        "gated": stored.gated and "auto",
        "siblings": siblings,
        "tags": [],
        "cardData": front_of(stored.files),
    }

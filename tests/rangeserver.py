"""A small HTTP server for tests: byte ranges, conditional requests, a log of every request, and faults on demand."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Callable
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import quote, unquote


class Request(NamedTuple):
    """One request, as the server saw it."""

    method: str
    key: str
    range: tuple[int, int] | None
    headers: dict[str, str]
    status: int


class Answer:
    """What the server is about to send; faults change it."""

    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.status, self.body, self.headers = status, body, headers
        self.cut: int | None = None  # close the connection after so many bytes of the body


class RangeServer:
    """Serve `objects` (key → bytes) on 127.0.0.1; `requests` logs, `fail` injects faults.

    Examples
    --------
    >>> with RangeServer({"a.nc": b"0123"}) as server:
    ...     server.url("a.nc").startswith("http://127.0.0.1:")
    True
    """

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects: dict[str, bytes] = dict(objects or {})
        self.modified: dict[str, float] = {}
        self.requests: list[Request] = []
        self._etags: dict[str, tuple[bytes, str]] = {}
        self._faults: list[tuple[str, int]] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def __enter__(self) -> RangeServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def root(self) -> str:
        """The URL of the server, without a final slash."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def url(self, key: str) -> str:
        """The URL of an object."""
        return f"{self.root}/{quote(key)}"

    def fail(self, fault: str, *, times: int = 10**9, after: int = 0) -> None:
        """Answer the next requests (after the first `after`) with a fault of `FAULTS`, `times` times."""
        if fault not in FAULTS:
            raise KeyError(f"{fault!r}: known are {sorted(FAULTS)}")
        self._faults += [("", 1)] * after + [(fault, times)]

    def forget(self) -> None:
        """Drop the log and all faults."""
        self.requests.clear()
        self._faults.clear()

    def _next_fault(self) -> str:
        with self._lock:
            if not self._faults:
                return ""
            fault, times = self._faults[0]
            self._faults[:1] = [(fault, times - 1)] if times > 1 else []
            return fault

    def _answer(self, method: str, key: str, headers: dict[str, str]) -> Answer:
        data = self.objects.get(key)
        if data is None:
            return Answer(404, b"no such object", {})
        etag = self._etag(key, data)
        modified = self.modified.get(key, 1_600_000_000.0)
        common = {"ETag": etag, "Last-Modified": formatdate(modified, usegmt=True), "Accept-Ranges": "bytes"}
        unless = headers.get("if-unmodified-since")
        if ("if-match" in headers and headers["if-match"] not in (etag, "*")) or (
            unless and parsedate_to_datetime(unless).timestamp() < modified
        ):
            return Answer(412, b"", common)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
        if asked is None:
            return Answer(200, data, common)
        start, stop = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
        if start >= len(data):
            return Answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        return Answer(206, data[start:stop], {**common, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})

    def _etag(self, key: str, data: bytes) -> str:
        """The etag of an object, which is computed once while it is the same."""
        known = self._etags.get(key)
        if known is None or known[0] is not data:
            known = self._etags[key] = (data, f'"{hashlib.md5(data).hexdigest()}"')
        return known[1]

    def _handler(owner) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler's own self is another
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10
            disable_nagle_algorithm = True

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the console quiet."""

            def do_GET(self) -> None:
                key = unquote(self.path.lstrip("/"))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = owner._answer(self.command, key, headers)
                fault = owner._next_fault()
                if fault:
                    FAULTS[fault](answer, owner.objects.get(key, b""))
                asked = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("range", ""))
                range_ = (int(asked[1]), int(asked[2]) + 1) if asked else None
                owner.requests.append(Request(self.command, key, range_, headers, answer.status))
                self.send_response(answer.status)
                for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "HEAD":
                    return
                self.wfile.write(answer.body[: answer.cut])
                if answer.cut is not None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)

            do_HEAD = do_GET  # noqa: N815 - the name http.server looks for

        return Handler


def _status(status: int) -> Callable[[Answer, bytes], None]:
    def fault(answer: Answer, whole: bytes) -> None:
        answer.status, answer.body, answer.headers = status, b"<html>no</html>", {}

    return fault


def _cut_body(answer: Answer, whole: bytes) -> None:
    answer.cut = len(answer.body) // 2


def _fewer_bytes(answer: Answer, whole: bytes) -> None:
    answer.body = answer.body[: len(answer.body) // 2]
    start = int(re.findall(r"\d+", answer.headers["Content-Range"])[0])
    answer.headers["Content-Range"] = f"bytes {start}-{start + len(answer.body) - 1}/{len(whole)}"


def _fewer_bytes_unsaid(answer: Answer, whole: bytes) -> None:
    answer.body = answer.body[: len(answer.body) // 2]


def _whole_object(answer: Answer, whole: bytes) -> None:
    answer.status, answer.body = 200, whole
    answer.headers.pop("Content-Range", None)


def _another_range(answer: Answer, whole: bytes) -> None:
    start, end, size = map(int, re.findall(r"\d+", answer.headers["Content-Range"]))
    answer.headers["Content-Range"] = f"bytes {start + 1}-{end + 1}/{size}"


def _no_range_header(answer: Answer, whole: bytes) -> None:
    answer.headers.pop("Content-Range", None)


def _etag(value: str | None) -> Callable[[Answer, bytes], None]:
    def fault(answer: Answer, whole: bytes) -> None:
        answer.headers.pop("ETag", None)
        if value is not None:
            answer.headers["ETag"] = value

    return fault


FAULTS: dict[str, Callable[[Answer, bytes], None]] = {
    "": lambda answer, whole: None,
    **{str(status): _status(status) for status in (400, 401, 403, 404, 410, 412, 416, 429, 500, 503)},
    "cut body": _cut_body,
    "fewer bytes": _fewer_bytes,
    "fewer bytes, unsaid": _fewer_bytes_unsaid,
    "200 for a range": _whole_object,
    "another range": _another_range,
    "no content-range": _no_range_header,
    "other etag": _etag('"another"'),
    "weak etag": _etag('W/"weak"'),
    "no etag": _etag(None),
}

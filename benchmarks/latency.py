"""An HTTP server of byte ranges in a process of its own, which waits 20 ms before every answer and counts requests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

DELAY = 0.02


class Latency:
    """The server, over the files of a folder; ``with Latency(folder) as server``."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen([sys.executable, __file__, str(folder)], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.root = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def __enter__(self) -> Latency:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()

    def count(self) -> dict[str, int]:
        """Return and forget: requests, bytes sent, the most in flight at a time, and rounds.

        A round begins with a request that was sent when none was under way: what it asks for was not known before.
        """
        with urlopen(f"{self.root}/count", timeout=60) as answer:
            found: dict[str, int] = json.load(answer)
        return found


def serve(folder: Path) -> None:
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    lock = threading.Lock()
    blank = {"requests": 0, "bytes": 0, "at_once": 0, "rounds": 0}
    state = {**blank, "now": 0}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/count":
                with lock:
                    body = json.dumps({name: state[name] for name in blank}).encode()
                    state.update(blank)
                self._send(200, body, {})
                return
            with lock:
                state["requests"] += 1
                state["rounds"] += state["now"] == 0
                state["now"] += 1
                state["at_once"] = max(state["at_once"], state["now"])
            time.sleep(DELAY)
            self._range(files.get(self.path.lstrip("/")))
            with lock:
                state["now"] -= 1

        do_HEAD = do_GET  # noqa: N815 - the name is the library's

        def _range(self, data: bytes | None) -> None:
            if data is None:
                self._send(404, b"", {})
                return
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
            headers = {"ETag": f'"{len(data)}"', "Accept-Ranges": "bytes"}
            if asked is None:
                self._send(200, data, headers)
                return
            start, stop = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
            with lock:
                state["bytes"] += stop - start if self.command == "GET" else 0
            content = f"bytes {start}-{stop - 1}/{len(data)}"
            self._send(206, memoryview(data)[start:stop], {**headers, "Content-Range": content})

        def _send(self, status: int, body: Any, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

"""The peers: VirtualiZarr, kerchunk and icechunk, in an environment of their own and each in a process of its own.

``.venv-peers`` is made here, beside the environment of the library, from ``requirements.txt``. A peer is a worker
(``worker.py``) that takes JSON, a line a request, loads *cases* and runs them when it is told to. What a run takes is
measured in the worker, so that neither the start of an interpreter nor the pipe counts, and it is told to run in turn
with ours, so that ratios are of one window of time.

>>> runs = {"ours": read, **cases("read", url=url)}  # doctest: +SKIP
>>> alternately(runs)  # doctest: +SKIP
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FOLDER = ROOT / ".venv-peers"
NAMES = ("virtualizarr", "kerchunk", "icechunk")
#: How many seconds a peer may take for one run: more is left out of the table.
LONGEST = 300


class Elapsed(float):
    """The seconds that a run took in a worker, with what it returned in `value`."""

    value: Any = None


class PeerError(RuntimeError):
    """A case failed in the worker; the message is its traceback."""


class Peer:
    """A worker process of one peer."""

    def __init__(self, name: str, python: Path) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [str(python), str(HERE / "worker.py"), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.cases: list[str] = self._ask({"do": "list"})["cases"]
        atexit.register(self.close)

    def load(self, case: str, **arguments: Any) -> Callable[[], Elapsed]:
        """Prepare a case in the worker; the function that is returned runs it once."""
        number = self._ask({"do": "load", "case": case, "arguments": arguments})["number"]

        def run() -> Elapsed:
            answer = self._ask({"do": "run", "number": number})
            elapsed = Elapsed(answer["seconds"])
            elapsed.value = answer["value"]
            return elapsed

        return run

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise PeerError(f"the worker of {self.name} ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(f"{self.name}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the worker."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@cache
def interpreter() -> Path | None:
    """Return the interpreter of the peers, made if it is not there; None where they cannot be installed."""
    python, stamp = FOLDER / "bin" / "python", FOLDER / "installed"
    wanted = [HERE / "requirements.txt", ROOT / "constraints.txt"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in wanted)).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest and python.exists():
        return python
    print(f"installing the peers in {FOLDER.name} (a minute the first time)", flush=True)
    done = _install(python)
    if done.returncode:
        print(
            f"the peers could not be installed, and their columns stay empty; pip said:\n{done.stderr.strip()[-1500:]}",
            flush=True,
        )
        return None
    stamp.write_text(digest)
    return python


def _install(python: Path) -> subprocess.CompletedProcess[str]:
    base = os.environ.get("PYTHON") or sys.executable
    made = subprocess.run([base, "-m", "venv", "--clear", str(FOLDER)], capture_output=True, text=True, check=False)
    if made.returncode:
        return made
    files = ["-c", str(ROOT / "constraints.txt"), "-r", str(HERE / "requirements.txt")]
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *files]
    return subprocess.run(install, capture_output=True, text=True, check=False)


def versions() -> dict[str, str]:
    """Return the versions of the peers that are installed, as they are pinned."""
    if interpreter() is None:
        return {}
    pins = [line.split("==") for line in (HERE / "requirements.txt").read_text().splitlines() if "==" in line]
    return {name: pinned for name, pinned in pins if name in NAMES}


@cache
def peer(name: str) -> Peer | None:
    """Return the running worker of a peer, or None where there is none."""
    python = interpreter()
    return None if python is None else Peer(name, python)


def cases(case: str, only: tuple[str, ...] = NAMES, **arguments: Any) -> dict[str, Callable[[], Elapsed]]:
    """Return for each peer that knows a case the function that runs it: ready to be timed in turn with ours."""
    found = {}
    for name in only:
        running = peer(name)
        if running is not None and case in running.cases:
            found[name] = running.load(case, **arguments)
    return found


def alone(name: str, case: str, **arguments: Any) -> Elapsed | None:
    """Run a case once in a fresh worker, as memory is to be measured; None where there is none."""
    python = interpreter()
    if python is None:
        return None
    fresh = Peer(name, python)
    try:
        return fresh.load(case, **arguments)()
    finally:
        fresh.close()

"""The netCDF library in a process of its own: damaged files make it crash, hang, or ask for all memory."""

from __future__ import annotations

import math
import pickle
import resource
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np

#: What one file may take.
SECONDS, BYTES = 10, 2 << 30
MOST_VALUES = 1_000_000


def netcdf_values(path: Path | str) -> dict[str, Any]:
    """What the netCDF library reads, raw, in native byte order."""
    with netCDF4.Dataset(path) as dataset:
        dataset.set_auto_maskandscale(False)
        dataset.set_auto_chartostring(False)
        if any(math.prod(variable.shape) > MOST_VALUES for variable in dataset.variables.values()):
            raise ValueError("too large for a test")
        values = {name: np.asarray(variable[...]) for name, variable in dataset.variables.items()}
    return {name: value.astype(value.dtype.newbyteorder("=")) for name, value in values.items()}


class IsolatedReader:
    """Reads files in a child process, which is started anew after a crash."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def read(self, path: Path) -> dict[str, Any]:
        """Raise RuntimeError where the library refuses the file or does not survive it."""
        if self._child is None:
            self._child = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child = self._child
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(f"{path}\n".encode())
        child.stdin.flush()
        head = child.stdout.read(8)
        if len(head) < 8:
            self.close()
            raise RuntimeError("the library did not survive the file")
        found = pickle.loads(child.stdout.read(struct.unpack("<q", head)[0]))
        if isinstance(found, str):
            raise RuntimeError(found)
        values: dict[str, Any] = found
        return values

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def serve() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        signal.alarm(SECONDS)
        try:
            answer: Any = netcdf_values(line.rstrip("\n"))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a refusal
            answer = repr(error)
        signal.alarm(0)
        raw = pickle.dumps(answer)
        sys.stdout.buffer.write(struct.pack("<q", len(raw)) + raw)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve()

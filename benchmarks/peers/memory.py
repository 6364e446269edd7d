"""Memory of the process that asks, on Linux."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import Any

FOLDER = "s3://some-bucket/archive/of/a/model/with/a/long/name"


def status(name: str) -> int:
    """Return one of the sizes in ``/proc/self/status``, in bytes."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def settle() -> int:
    """Give back what is free, reset the peak, and return what the process holds."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")
    return status("VmRSS")


def over(step: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return the peak of a step and what it left behind, both over what was there before, and its result."""
    before = settle()
    result = step()
    peak = status("VmHWM") - before
    return max(peak, 0), max(settle() - before, 0), result


def urls(files: int) -> list[str]:
    """Return URLs of 100 characters."""
    return [f"{FOLDER}/run-{i % 7}/member-{i % 31:03d}/output-{i:08d}.nc4".ljust(100, "x") for i in range(files)]

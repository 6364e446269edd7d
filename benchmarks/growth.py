"""How time and memory grow from 1e5 to 1e8 references, over 1,000 files with URLs of 100 characters.

Each size has a process of its own, so that the peak of one is not that of another. The memory of a step is the most
that the process held while it ran, over what it held before: ``VmHWM`` of Linux, which is reset between steps.
``python benchmarks/growth.py 7`` measures 1e7 references and prints JSON.
"""

from __future__ import annotations

import json
import math
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measure import QUICK, Row
from peers import memory
from peers.memory import settle, status

import virtualchunks as vc
from virtualchunks.manifest import ChunkManifest
from virtualchunks.writers.kerchunk import write_json, write_parquet

FILES = 1000
POWERS = (5, 6, 7) if QUICK else (5, 6, 7, 8)
STEPS = ("build", "concat 2", "concat 1000", "slice", "pickle", "write Parquet", "write JSON")
#: JSON of 1e8 references would be 13 GB.
MOST = {"write JSON": 7}
#: How often each step runs.
REPEAT = {10**5: 9, 10**6: 7, 10**7: 3, 10**8: 3}


class Sink:
    """A file that keeps nothing but the count of its bytes."""

    size = 0

    def write(self, data: Any) -> int:
        count = len(data) if isinstance(data, bytes) else memoryview(data).nbytes
        self.size += count
        return count


def measured(step: Callable[[], Any], count: int) -> tuple[dict[str, float], Any]:
    """Run a step several times; return the least seconds, bytes per reference at its peak and kept, and its result."""
    result, times = None, []
    for _ in range(REPEAT[count]):
        del result
        before = settle()
        start = time.perf_counter()
        result = step()
        times.append(time.perf_counter() - start)
        peak = status("VmHWM")
    kept = settle() - before
    return {"seconds": min(times), "peak": max(peak - before, 0) / count, "kept": max(kept, 0) / count}, result


def columns(count: int) -> dict[str, Any]:
    """Return columns as archives have them: chunk by chunk the same places in each file, which costs no memory."""
    names = np.array(memory.urls(FILES), dtype=np.dtypes.StringDType())
    each = count // FILES
    shape = (FILES, each)
    return {
        "paths": np.broadcast_to(names[:, None], shape),
        "offsets": np.broadcast_to(np.arange(each, dtype="u8") * 4096 + 2048, shape),
        "lengths": np.broadcast_to(np.uint64(4096), shape),
    }


def array(manifest: ChunkManifest) -> vc.ManifestArray:
    """Return an array over a manifest, a chunk an element of the first axis."""
    metadata = vc.ArrayMetadata.build(
        shape=(*manifest.shape_chunk_grid, 10),
        chunks=(1, 1, 10),
        dtype="<f4",
        dimension_names=("file", "time", "x"),
        fill_value=np.nan,
    )
    flat = ChunkManifest.from_records(manifest.records[..., None], manifest.sources)
    return vc.ManifestArray(metadata, flat)


def curve(power: int) -> dict[str, Any]:
    """Measure every step for ``10**power`` references in this process."""
    count = 10**power
    given = columns(count)
    warm = array(ChunkManifest.from_arrays(**columns(FILES)))  # imports, and the buffers of libraries
    folder = Path(tempfile.mkdtemp(prefix="growth-"))
    write_parquet(vc.ManifestGroup({"v": warm}), folder / "warm.parquet")
    write_json(vc.ManifestGroup({"v": warm}), folder / "warm.json")
    found: dict[str, Any] = {}
    base = settle()
    found["build"], manifest = measured(lambda: ChunkManifest.from_arrays(**given), count)
    whole = array(manifest)
    found["peak of building"] = base + found["build"]["peak"] * count
    halves = [whole[: FILES // 2], whole[FILES // 2 :]]
    pieces = [whole[row : row + 1] for row in range(FILES)]
    sink = Sink()
    group = vc.ManifestGroup({"v": whole})
    steps: dict[str, Callable[[], Any]] = {
        "concat 2": lambda: np.concatenate(halves),
        "concat 1000": lambda: np.concatenate(pieces),
        "slice": lambda: whole[FILES // 4 : 3 * FILES // 4, 5:-5],
        "pickle": lambda: pickle.dump(whole, sink, protocol=5),
        "write Parquet": lambda: write_parquet(group, folder / "a.parquet"),
        "write JSON": lambda: write_json(group, folder / "a.json"),
    }
    for name, step in steps.items():
        if power <= MOST.get(name, 99):
            found[name], _ = measured(step, count)
    shutil.rmtree(folder)
    return found


def curves(powers: tuple[int, ...] = POWERS) -> dict[int, dict[str, Any]]:
    """Measure every size, each in a process of its own."""
    found = {}
    for power in powers:
        done = subprocess.run([sys.executable, __file__, str(power)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        found[power] = json.loads(done.stdout)
    return found


def exponent(times: dict[int, float]) -> tuple[int, int, float]:
    """Return between which sizes, two decades apart where there are so many, and the slope there: 1 is linear."""
    *_, high = sorted(times)
    low = max(high - 2, min(times))
    return low, high, math.log10(times[high] / times[low]) / (high - low)


def rows(found: dict[int, dict[str, Any]]) -> Iterator[Row]:
    """Put the curves into the table."""
    top = max(found)
    last = found[top]
    label, grows = f"1e{top} references", "growth"
    yield Row(f"{label}: retained", last["build"]["kept"], "B/ref", 16, target="<= 1.05 ×", number=grows)
    peak = last["peak of building"] / 1e9
    yield Row(f"{label}: the whole process at its peak", peak, "GB", target="<= 2.2 GB", number=grows)
    for step in STEPS:
        times = {power: entry[step]["seconds"] for power, entry in found.items() if step in entry}
        last = max(times)
        took = found[last][step]
        yield Row(f"{step}, 1e{last}", took["seconds"], "s", number=grows)
        if step != "slice":  # which takes what it takes, whatever the size
            low, high, slope = exponent(times)
            label = f"{step}: exponent from 1e{low} to 1e{high} (1 is linear)"
            yield Row(label, slope, "", target="<= 1.1", number=grows)
        yield Row(f"{step}, 1e{last}: memory at its peak", took["peak"], "B/ref", number=grows)


if __name__ == "__main__":
    print(json.dumps(curve(int(sys.argv[1]))))

"""Codecs are looked up by one thread at a time, and when zarr is there to its last module."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from virtualchunks.codecs import pipeline
from virtualchunks.codecs.pipeline import decode_block
from virtualchunks.encoding import ChunkEncoding


def test_one_thread_at_a_time_looks_codecs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    look_up, now, most, lock = pipeline._codec, [0], [0], threading.Lock()

    def slowly(document: Any) -> Any:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.005)
        with lock:
            now[0] -= 1
        return look_up(document)

    monkeypatch.setattr(pipeline, "_codec", slowly)
    values = np.arange(5, dtype="<i8")
    encodings = [ChunkEncoding.plain(f"<i{size}", [{"name": "crc32c"}]) for size in (1, 2, 4, 8)]
    pipeline._chain.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        blocks = list(pool.map(lambda encoding: _round_trip(values, encoding), encodings * 4))
    assert all(np.array_equal(block, values) for block in blocks)
    assert most == [1]


def _round_trip(values: Any, encoding: ChunkEncoding) -> Any:
    data = pipeline.encode_block(values.astype(encoding.dtype), encoding)
    return decode_block(data, encoding, values.shape)


WHILE_ZARR_IS_IMPORTED = """
import sys, threading
from virtualchunks.codecs.pipeline import decode_block
from virtualchunks.encoding import ChunkEncoding
found = []
def read():
    while "zarr.core.array_spec" not in sys.modules:
        pass
    found.append(decode_block(bytes(16), ChunkEncoding.plain("<f4"), (4,)).tolist())
thread = threading.Thread(target=read)
thread.start()
import zarr
thread.join()
print(found)
"""


def test_codecs_are_there_while_another_thread_imports_zarr() -> None:
    done = subprocess.run([sys.executable, "-c", WHILE_ZARR_IS_IMPORTED], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[[0.0, 0.0, 0.0, 0.0]]", done.stderr

"""Parsers that do what native code does to a process: the name of the file says what."""

from __future__ import annotations

import ctypes
import os
import sys
import time
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import virtualchunks as vc
from virtualchunks.errors import FormatError, UnsupportedArrayWarning
from virtualchunks.manifest import RECORD
from virtualchunks.reading.reader import ObjectReader


class TheirError(FormatError):
    """An error of a third party, derived from one of ours."""


def crash(url: str) -> None:
    sys.stderr.write("corrupted size vs. prev_size\n")
    sys.stderr.flush()
    os.abort()


def segmentation_fault(url: str) -> None:
    ctypes.string_at(8)


def leave(url: str) -> None:
    os._exit(7)


def hang(url: str) -> None:
    while True:
        time.sleep(0.01)


def hang_in_native_code(url: str) -> None:
    """Without giving up the interpreter's lock."""
    ctypes.PyDLL(None).sleep(10_000)


def eat(url: str) -> None:
    kept = []
    while True:
        kept.append(np.ones(1 << 20))


def answer_at_length(url: str) -> None:
    os.write(1, b"x" * (1 << 20))
    print("printed " * 100_000, flush=True)


def refuse(url: str) -> None:
    raise FormatError("not of this format", url=url, variable="v", chunk=(1, 2))


def refuse_in_their_own_way(url: str) -> None:
    raise TheirError("not of theirs")


def fail(url: str) -> None:
    raise KeyError("a bug")


def warn(url: str) -> None:
    warnings.warn(UnsupportedArrayWarning("'w' is left out"), stacklevel=1)
    warnings.warn("something else", stacklevel=1)
    warnings.warn("of no concern", DeprecationWarning, stacklevel=1)


@dataclass(frozen=True, kw_only=True)
class Misbehaving:
    """Reads the first bytes of a file as an array, after doing what the file's name says."""

    strict: bool = False
    drop_variables: tuple[str, ...] = ()

    name: ClassVar[str] = "Misbehaving"
    suffixes: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        return head.startswith(b"MISBEHAVING")

    def __call__(self, url: str, registry: vc.ObjectStoreRegistry) -> vc.ManifestStore:
        what = url.rpartition("/")[2]
        action: Any = globals().get(what, lambda url: None)
        action(url)
        with ObjectReader(registry, url) as reader:
            reader.read_at(0, 4)
            sources = vc.SourceTable.single(reader.url, reader.stamp)
        metadata = vc.ArrayMetadata.build(shape=(4,), chunks=(4,), dtype="u1", dimension_names=("x",))
        array = vc.ManifestArray(metadata, vc.ChunkManifest.from_records(np.array([(0, 4, 0)], RECORD), sources))
        arrays = {name: array for name in ("v", "w") if name not in self.drop_variables}
        attributes = {"strict": self.strict, "pid": os.getpid(), "range": np.float32([0, 1]), "when": np.int64(3)}
        wider = {"beneath": url, "everything": "file:///"}.get(what)
        found = registry if wider is None else vc.ObjectStoreRegistry({wider: None})
        return vc.ManifestStore(vc.ManifestGroup(arrays, {}, attributes), registry=found)

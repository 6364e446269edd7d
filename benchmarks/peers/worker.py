"""The process of a peer: reads requests as lines of JSON, prepares and runs cases, and says how long they took.

It runs in the environment of the peers and imports nothing of ours.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any


def main(name: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    warnings.simplefilter("ignore")
    known = importlib.import_module(f"of_{name}").CASES
    loaded: list[Callable[[], Any]] = []
    for line in sys.stdin:
        try:
            answer = _answer(json.loads(line), known, loaded)
        except Exception:  # noqa: BLE001 - whatever a case raises is the benchmark's to report
            answer = {"error": traceback.format_exc(limit=-4)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(request: dict[str, Any], known: dict[str, Any], loaded: list[Callable[[], Any]]) -> dict[str, Any]:
    if request["do"] == "list":
        return {"cases": sorted(known)}
    if request["do"] == "load":
        loaded.append(known[request["case"]](**request["arguments"]))
        return {"number": len(loaded) - 1}
    gc.collect()
    start = time.perf_counter()
    value = loaded[request["number"]]()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "value": value if isinstance(value, int | float | str | list | dict) else None}


if __name__ == "__main__":
    main(sys.argv[1])

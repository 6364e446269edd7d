"""The machinery of the benchmarks: targets mean what they say, and peers answer from a process of their own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
FOLDER = PROJECT / "benchmarks"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the benchmarks are not part of source distributions")

TOY = """
def double(number):
    print("what libraries print is no answer")
    return lambda: number * 2

def fail():
    raise ValueError("no such file")

CASES = {"double": double, "fail": fail}
"""


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import measure
    import peers

    yield measure, peers
    for name in ("measure", "peers"):
        sys.modules.pop(name)


@pytest.mark.parametrize(
    ("target", "met"),
    [
        ("<= 3 ×", True),
        ("< 2 ×", False),
        ("<= 0.5 × the peer", True),
        ("<= 0.1 × the peer", False),
        ("<= 3 ×; <= 0.1 × the peer", False),
        ("<= 2 s", True),
        ("<= 1999 ms", False),
        (">= 2", True),
        ("same size", None),
        ("", None),
    ],
)
def test_a_target_is_met_or_not(modules, target, met):
    measure, _ = modules
    row = measure.Row("reading", 2.0, "s", bound=1.0, peer=8.0, target=target)
    assert row.met is met
    assert ("NOT MET" in row.text()) is (met is False)


def test_what_is_not_there_is_not_met_nor_missed(modules):
    measure, _ = modules
    assert measure.Row("reading", 2.0, "s", target="<= 3 ×; <= 0.5 × the peer").met is None


def test_units(modules):
    measure, _ = modules
    assert measure.Row("bytes", 1.9e6, "B", target="<= 2 MB").met is True
    assert measure.Row("memory", 2.3, "GB", target="<= 2.2 GB").met is False
    assert measure.Row("memory", 16.5, "B/ref", target="<= 17 B/ref").met is True


def test_a_worker_loads_and_runs_cases_and_goes_on_after_errors(modules, tmp_path, monkeypatch):
    measure, peers = modules
    (tmp_path / "of_toy.py").write_text(TOY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = peers.Peer("toy", Path(sys.executable))
    try:
        assert worker.cases == ["double", "fail"]
        run = worker.load("double", number=21)
        with pytest.raises(peers.PeerError, match="no such file"):
            worker.load("fail")
        taken = run()
        assert taken.value == 42
        assert 0 <= taken < 1
        assert measure.best(run, 2) < 1
    finally:
        worker.close()


def test_the_peers_are_pinned_as_everything_else(modules):
    _, peers = modules
    lines = (FOLDER / "peers" / "requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    constraints = (PROJECT / "constraints.txt").read_text().splitlines()
    held = dict(line.split("==") for line in constraints if not line.startswith("#"))
    assert set(peers.NAMES) <= set(pins)
    assert {name: held[name] for name in pins if name in held} == {name: pins[name] for name in pins if name in held}


def test_every_case_of_the_main_table_has_a_peer(modules):
    asked = set()
    for part in ("sidebyside", "scattered", "core", "parsing", "references", "verbs"):
        asked |= set(re.findall(r"""(?:cases|peers)\("(\w+)\"""", (FOLDER / f"{part}.py").read_text()))
    known = set()
    for name in ("virtualizarr", "kerchunk", "icechunk"):
        text = (FOLDER / "peers" / f"of_{name}.py").read_text()
        known |= set(re.findall(r"^def (\w+)\(.*\) -> Run:", text, re.MULTILINE))
    assert asked
    assert asked <= known


def test_the_results_that_are_kept_can_be_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    results = json.loads((FOLDER / "results" / "latest.json").read_text())
    assert {"rows", "growth", "versions", "machine"} <= set(results)
    code = "import json, sys; sys.path.insert(0, sys.argv[1]); import pictures; from pathlib import Path\n"
    code += "pictures.draw(json.loads((pictures.RESULTS / 'latest.json').read_text()), Path(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", code, str(FOLDER), str(tmp_path)], check=True, timeout=120)
    for name in ("latest", "growth"):
        assert 1000 < (tmp_path / f"{name}.svg").stat().st_size < 150_000

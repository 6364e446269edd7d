"""Parsers of other distributions: built as wheels, installed by pip, and found by a fresh interpreter.

The first distribution is the one that the page on writing a parser shows, file by file.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parent.parent
PAGE = PROJECT / "docs" / "how-to" / "write-a-parser.md"
FILE = re.compile(r"^```\w+ title=\"(?P<name>[^\"]+)\"\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
GROUP = "virtualchunks.parsers"

pip = pytest.importorskip("pip")


def build_wheel(
    folder: Path,
    name: str,
    modules: Mapping[str, str],
    parsers: Mapping[str, str],
    *,
    requires: tuple[str, ...] = (),
    version: str = "1.0",
) -> Path:
    """Write a wheel as the binary distribution format says (PEP 427): modules, metadata, entry points, record."""
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *requires]
    entries = "\n".join(f"{entry} = {target}" for entry, target in parsers.items())
    files = {
        **modules,
        f"{stem}.dist-info/METADATA": "\n".join(metadata) + "\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{stem}.dist-info/entry_points.txt": f"[{GROUP}]\n{entries}\n",
    }
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        rows.writerow([path, f"sha256={digest}", len(content.encode())])
    rows.writerow([f"{stem}.dist-info/RECORD", "", ""])
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in {**files, f"{stem}.dist-info/RECORD": record.getvalue()}.items():
            archive.writestr(path, content)
    return wheel


def toy(name: str, magic: str) -> str:
    """Return a module with a parser that finds nothing in files that begin with some magic bytes."""
    return f"""
import virtualchunks as vc

class Parser:
    name, suffixes = {name!r}, ()

    @classmethod
    def recognises(cls, head):
        return head.startswith({magic!r}.encode())

    def __call__(self, url, registry):
        return vc.ManifestStore(vc.ManifestGroup(attributes={{"by": {name!r}}}), registry=registry)
"""


def install(wheels: list[Path], target: Path) -> Path:
    """Install wheels into a folder with pip, without any index."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run([*command, "--no-deps", "--target", str(target), *map(str, wheels)], check=True)
    return target


def shown() -> dict[str, str]:
    """Return the files that the page shows."""
    return {match["name"]: match["code"] for match in FILE.finditer(PAGE.read_text(encoding="utf-8"))}


def slab_wheel(folder: Path) -> Path:
    """Build the distribution that the page shows."""
    project = tomllib.loads(shown()["pyproject.toml"])["project"]
    modules = {"slab_parser.py": shown()["slab_parser.py"]}
    parsers = project["entry-points"][GROUP]
    return build_wheel(folder, project["name"], modules, parsers, version=project["version"])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution of the page, installed."""
    return install([slab_wheel(tmp_path_factory.mktemp("wheels"))], tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution of the page, one that claims names and files of others, and one that is broken."""
    wheels = tmp_path_factory.mktemp("wheels")
    modules = {"other_slabs.py": toy("other", "OTHER"), "greedy.py": toy("greedy", "")}
    parsers = {"slab": "other_slabs:Parser", "hdf5": "other_slabs:Parser", "aaa": "greedy:Parser"}
    other = build_wheel(wheels, "Other.Slabs", modules, parsers)
    modules = {
        "broken_import.py": "import surely_not_installed",
        "broken_code.py": "raise RuntimeError('on import')",
        "broken_kind.py": "Parser = len",
        "broken_sniffing.py": toy("sniffing", "x").replace("return head", "return head.nothing, head"),
    }
    parsers = {f"broken-{kind}": f"broken_{kind}:Parser" for kind in ("import", "code", "kind", "sniffing")}
    parsers["broken-name"] = "broken_sniffing:NoSuchParser"
    requires = ("Provides-Extra: odd", "Requires-Dist: surely-not-installed>=2; extra == 'odd'")
    broken = build_wheel(wheels, "broken-parsers", modules, parsers, requires=requires)
    return install([slab_wheel(wheels), other, broken], tmp_path_factory.mktemp("site"))


PREAMBLE = """
import json, virtualchunks as vc
from virtualchunks.errors import *
from virtualchunks.parsing import *
from virtualchunks.urls import as_url

def said(call):
    try:
        call()
    except VirtualChunksError as error:
        return [type(error).__name__, str(error)]

def kind_of(name):
    return type(find_parser(as_url(name), vc.ObjectStoreRegistry().grant(name))).__module__
"""


def fresh(site: Path, code: str, folder: Path) -> Any:
    """Run code in a fresh interpreter that has the distributions; return what it prints as JSON."""
    path = os.pathsep.join([str(site), str(PROJECT), str(PROJECT / "parsers")])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore::UserWarning"}
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code], cwd=folder, env=environment, check=True, capture_output=True
    )
    return json.loads(done.stdout)


def slab_file(folder: Path) -> None:
    """Write a file with the library of the page."""
    namespace: dict[str, Any] = {}
    exec(compile(shown()["slab.py"], "slab.py", "exec"), namespace)
    np = namespace["np"]
    namespace["write_slab"](folder / "a.dat", {"air": np.arange(6, dtype="f4").reshape(3, 2)})


def test_a_file_is_opened_by_its_content_by_name_and_isolated(alone: Path, tmp_path: Path) -> None:
    slab_file(tmp_path)
    found = fresh(
        alone,
        "names = ('slab', None)\n"
        "opened = [vc.open_virtual_dataset('a.dat', parser=name, isolate=name is None) for name in names]\n"
        "print(json.dumps([data.virtual.open()['air'].values.tolist() for data in opened]))",
        tmp_path,
    )
    assert found == [[[0, 1], [2, 3], [4, 5]]] * 2


def test_names_that_several_distributions_claim(crowded: Path, tmp_path: Path) -> None:
    names, hdf5, other, ambiguous = fresh(
        crowded,
        "kinds = [load_parser(name) for name in ('hdf5', 'other-slabs:hdf5')]\n"
        "print(json.dumps([parser_names(), *[kind.__module__ for kind in kinds], said(lambda: load_parser('slab'))]))",
        tmp_path,
    )
    assert {"hdf5", "other-slabs:hdf5", "slab-parser:slab", "other-slabs:slab", "aaa"} <= set(names)
    assert "slab" not in names
    assert hdf5.startswith("virtualchunks_parsers.hdf5")
    assert other == "other_slabs"
    assert ambiguous[0] == "FormatError"
    assert "'slab'" in ambiguous[1]
    assert "say which" in ambiguous[1]
    assert {"other-slabs:slab", "slab-parser:slab"} <= set(re.split(r"[ ,]+", ambiguous[1]))


def test_files_of_ours_stay_ours(crowded: Path, tmp_path: Path) -> None:
    """A parser that takes every file for its own is asked after virtualchunks' own, and of a known format never."""
    (tmp_path / "refs").write_text('{"version": 1, "refs": {".zgroup": "{\\"zarr_format\\": 2}"}}')
    (tmp_path / "unknown").write_bytes(b"\x07\x08")
    kinds = fresh(crowded, "print(json.dumps([kind_of('refs'), kind_of('unknown')]))", tmp_path)
    assert kinds[0].startswith("virtualchunks_parsers.kerchunk")
    assert kinds[1] == "greedy"


def test_parsers_that_cannot_be_used_say_whose_they_are(crowded: Path, tmp_path: Path) -> None:
    kinds = ("import", "code", "kind", "name")
    found = fresh(
        crowded,
        f"print(json.dumps([said(lambda: load_parser('broken-' + kind)) for kind in {kinds!r}]))",
        tmp_path,
    )
    said = dict(zip(kinds, found, strict=True))
    assert {kind for kind, _ in found} == {"MissingDependencyError"}
    for kind, (_, text) in said.items():
        assert f"the parser 'broken-{kind}' of broken-parsers 1.0" in text
    assert "pip install 'broken-parsers[odd]'" in said["import"][1]
    assert "RuntimeError: on import" in said["code"][1]
    assert "not the class of a parser" in said["kind"][1]
    assert "NoSuchParser" in said["name"][1]

"""Finding a parser: by instance, class, name, content and suffix; and what is said when there is none."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from obstore.store import MemoryStore

import virtualchunks as vc
from tests.xarray.toyformat import ToyParser
from virtualchunks.errors import FormatError, MissingDependencyError, SourceUnavailableError, UnsupportedFeatureError
from virtualchunks.parsing import HEAD, Parser, SniffingParser, find_parser, load_parser, parser_names, read_head


@dataclass(frozen=True, kw_only=True)
class FolderParser:
    """Knows its files by their suffix alone."""

    suffixes: ClassVar[tuple[str, ...]] = (".folder",)

    def __call__(self, url: str, registry: vc.ObjectStoreRegistry) -> vc.ManifestStore:
        return vc.ManifestStore(vc.ManifestGroup())


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two further parsers, installed as a third party's distribution would be, and one whose dependency is missing."""
    site = tmp_path / "site"
    info = site / "third_party-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\nProvides-Extra: odd\n"
        "Requires-Dist: surely-not-installed>=2; extra == 'odd'\n"
    )
    (info / "entry_points.txt").write_text(
        f"[virtualchunks.parsers]\ntoy = {ToyParser.__module__}:ToyParser\n"
        f"folder = {__name__}:FolderParser\nodd = surely_not_installed:Parser\n"
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[FolderParser.__module__])
    return tmp_path


def registry(folder: Path) -> vc.ObjectStoreRegistry:
    return vc.ObjectStoreRegistry({str(folder): None})


def test_protocols():
    assert isinstance(ToyParser(), Parser)
    assert issubclass(type(ToyParser()), object)
    assert isinstance(ToyParser(), SniffingParser)
    assert not isinstance(FolderParser(), SniffingParser)


def test_by_content_then_by_suffix(installed: Path):
    assert {"toy", "folder", "odd"} <= set(parser_names())
    (installed / "renamed.dat").write_bytes(b"TOY1....")
    (installed / "a.folder").mkdir()
    (installed / "b.folder").write_bytes(b"whatever")
    granted = registry(installed)
    assert find_parser((installed / "renamed.dat").as_uri(), granted) == ToyParser()
    assert find_parser((installed / "a.folder").as_uri(), granted) == FolderParser()
    assert find_parser((installed / "b.folder").as_uri(), granted) == FolderParser()


def test_given(installed: Path):
    granted = vc.ObjectStoreRegistry()
    parser = ToyParser()
    assert find_parser("s3://b/a", granted, parser) is parser
    assert find_parser("s3://b/a", granted, ToyParser) == parser
    assert find_parser("s3://b/a", granted, "toy") == parser
    assert find_parser("s3://b/a", granted, "toy", strict=True) == ToyParser(strict=True)
    assert find_parser("s3://b/a", granted, parser, strict=True) == ToyParser(strict=True)
    with pytest.raises(UnsupportedFeatureError, match="no argument strict"):
        find_parser("s3://b/a", granted, FolderParser(), strict=True)
    with pytest.raises(UnsupportedFeatureError, match="strict"):
        find_parser("s3://b/a", granted, lambda url, registry: None, strict=True)
    with pytest.raises(TypeError, match=r"installed are .*toy"):
        find_parser("s3://b/a", granted, 3)
    with pytest.raises(FormatError, match=r"no parser named 'tyo'.*toy"):
        find_parser("s3://b/a", granted, "tyo")


def test_a_missing_dependency_names_the_extra(installed: Path):
    with pytest.raises(MissingDependencyError, match=r"needs surely_not_installed.*'third-party\[odd\]'"):
        load_parser("odd")


@pytest.mark.parametrize(
    ("content", "looks"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n....", "PNG"),
        (b"<!DOCTYPE html><html>Please log in", "HTML"),
        (b"\x07\x08unknown", "unknown kind"),
    ],
)
def test_what_no_parser_knows(installed: Path, content, looks):
    path = installed / "a.toy" if looks == "PNG" else installed / "file"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        find_parser(path.as_uri(), registry(installed))
    text = str(caught.value)
    assert looks in text
    assert "installed parsers: " in text
    assert "toy (Toy)" in text
    assert "third-party[odd]" in text
    assert path.as_uri() in text


def test_a_file_that_is_not_there(installed: Path):
    with pytest.raises(SourceUnavailableError, match=r"nothing\.bin"):
        find_parser((installed / "nothing.bin").as_uri(), registry(installed))


def test_the_head_is_one_small_request():
    store = MemoryStore()
    store.put("a", bytes(3 * HEAD))
    store.put("b", b"TOY1")
    granted = vc.ObjectStoreRegistry({"memory://": store})
    assert len(read_head("memory:///a", granted)) == HEAD
    assert read_head("memory:///b", granted) == b"TOY1"

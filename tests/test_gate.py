"""The gate: no reference reaches a byte that the registry does not grant, through whatever door it is read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from obspec_utils.registry import ObjectStoreRegistry as ObspecRegistry
from obstore.store import LocalStore
from rangeserver import RangeServer

import virtualchunks as vc
from virtualchunks.errors import NotGrantedError, ReadError, URLError, VirtualChunksError

SECRET, HARMLESS = b"a secret 16bytes", b"harmless 16bytes"
METADATA = vc.ArrayMetadata.build(shape=(16,), chunks=(16,), dtype="u1", dimension_names=("x",))

#: References that must not be read, by kind, with `{root}` for a folder of which `{root}/pub` is granted.
HOSTILE = {
    "outside": "file://{root}/home/secret",
    "plain path": "{root}/home/secret",
    "dots": "file://{root}/pub/../home/secret",
    "dots after a dot": "file://{root}/pub/./../home/secret",
    "dots after an empty segment": "file://{root}/pub//../home/secret",
    "encoded dots": "file://{root}/pub/%2e%2e/home/secret",
    "encoded dots and slash": "file://{root}/pub/%2E%2E%2fhome/secret",
    "doubly encoded dots": "file://{root}/pub/%252e%252e/home/secret",
    "fullwidth dots": "file://{root}/pub/\uff0e\uff0e/home/secret",
    "backslash": "file://{root}/pub/\\../home/secret",
    "sibling prefix": "file://{root}/public-private/secret",
    "link to a file": "file://{root}/pub/link",
    "link to a folder": "file://{root}/pub/folder-link/secret",
    "newline": "file://{root}/pub/\n../home/secret",
    "tab within dots": "file://{root}/pub/.\t./home/secret",
    "NUL": "file://{root}/pub/harmless\0",
    "environment": "file:///proc/self/environ",
    "memory of the process": "file:///proc/self/mem",
    "endless device": "file:///dev/zero",
    "standard input": "file:///dev/fd/0",
    "pipe": "file://{root}/pub/pipe",
    "folder": "file://{root}/pub/inner",
    "host": "file://evil{root}/pub/harmless",
    "host without slashes": "file:{root}/home/secret",
    "scheme in capitals": "FILE://{root}/home/secret",
    "scheme of fsspec": "local://{root}/home/secret",
    "chain": "simplecache::file://{root}/home/secret",
    "template": "{{{{u}}}}/home/secret",
    "relative": "../home/secret",
    "home": "~/secret",
    "userinfo": "file://user@localhost{root}/pub/harmless",
    "query": "file://{root}/pub/harmless?versionId=7",
    "fragment": "file://{root}/pub/harmless#part",
    "root that is not bound": "{{{{elsewhere}}}}/harmless",
    "dots behind a root": "{{{{here}}}}/../home/secret",
    "encoded dots behind a root": "{{{{here}}}}/%2e%2e/home/secret",
    "link behind a root": "{{{{here}}}}/link",
    "other host": "http://127.0.0.1:{port}/secret",
    "host before an at": "http://granted.example@127.0.0.1:{port}/secret",
    "other bucket": "s3://pub/harmless",
    "memory": "memory:///harmless",
    "data": "data:,a%20secret%2016bytes",
}
GRANTED = {
    "URL": "file://{root}/pub/harmless",
    "plain path": "{root}/pub/harmless",
    "localhost": "file://localhost{root}/pub/inner/harmless",
    "link inside": "file://{root}/pub/link-inside",
    "name with every letter": "file://{root}/pub/%23%3F%25%2B%20%C3%A4%C3%B6",
}
REGISTRIES: dict[str, Callable[[Path], Any]] = {
    "prefix": lambda pub: vc.ObjectStoreRegistry({pub.as_uri(): None}),
    "mapping": lambda pub: {f"{pub.as_uri()}/": None},
    "store of the prefix": lambda pub: vc.ObjectStoreRegistry({pub.as_uri(): LocalStore(str(pub))}),
    "store of everything": lambda pub: vc.ObjectStoreRegistry({pub.as_uri(): LocalStore()}),
    "named root": lambda pub: vc.ObjectStoreRegistry({pub.as_uri(): None}, roots={"here": pub.as_uri()}),
    "obspec-utils": lambda pub: ObspecRegistry({pub.as_uri(): LocalStore(str(pub))}),
}
DOORS: dict[str, Callable[[vc.ManifestGroup, Any], Any]] = {
    "store": lambda group, registry: zarr.open_group(vc.ManifestStore(group, registry=registry), mode="r")["v"][:],
    "open": lambda group, registry: group.to_virtual_dataset().virtual.open(registry)["v"].values,
    "engine": lambda group, registry: (
        xr.open_dataset(vc.ManifestStore(group, registry=registry), engine="virtualchunks")["v"].values
    ),
    "table": lambda group, registry: zarr.open_group(
        vc.ManifestStore(vc.ManifestGroup.from_arrow(group.to_arrow()), registry=registry), mode="r"
    )["v"][:],
    "inline": lambda group, registry: (
        group.virtual.inline(100, registry).to_virtual_dataset().virtual.open({})["v"].values
    ),
    "load": lambda group, registry: group.to_virtual_dataset(registry=registry, loadable_variables="v")["v"].values,
}


@pytest.fixture
def pub(tmp_path: Path) -> Path:
    """A folder to grant, with links out of it, and secrets beside it."""
    for name in ("home/secret", "public-private/secret"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(SECRET)
    pub = tmp_path / "pub"
    (pub / "inner").mkdir(parents=True)
    for name in ("harmless", "inner/harmless", "#?%+ äö"):
        (pub / name).write_bytes(HARMLESS)
    (pub / "link").symlink_to(tmp_path / "home" / "secret")
    (pub / "folder-link").symlink_to(tmp_path / "home")
    (pub / "link-inside").symlink_to(pub / "harmless")
    os.mkfifo(pub / "pipe")
    return pub


def through(door: str, url: str, registry: Any) -> bytes:
    array = vc.ManifestArray(METADATA, {"0": {"path": url, "offset": 0, "length": 16}})
    return bytes(DOORS[door](vc.ManifestGroup({"v": array}), registry).tobytes())


@pytest.mark.parametrize("registry", [*REGISTRIES, "none"])
@pytest.mark.parametrize("door", DOORS)
def test_nothing_outside_is_read(pub, range_server: RangeServer, door, registry):
    range_server.objects["secret"] = SECRET
    port = range_server.root.rpartition(":")[2]
    granted = REGISTRIES[registry](pub) if registry != "none" else None
    for kind, template in HOSTILE.items():
        with pytest.raises((NotGrantedError, URLError, ReadError)) as caught:
            through(door, template.format(root=pub.parent, port=port), granted)
        assert isinstance(caught.value, VirtualChunksError), kind
        assert SECRET.decode() not in str(caught.value)
        assert not isinstance(caught.value, FileNotFoundError | KeyError), kind
    assert range_server.requests == []


@pytest.mark.parametrize("registry", REGISTRIES)
@pytest.mark.parametrize("door", DOORS)
def test_what_is_granted_is_read(pub, door, registry):
    for kind, template in GRANTED.items():
        assert through(door, template.format(root=pub.parent), REGISTRIES[registry](pub)) == HARMLESS, kind


@pytest.mark.parametrize("name", ["#?%+ äö", "a b", "[x]*{y}", "%41", "c;d=e&f", "~t", "q'\"", "…", "e\u0301"])
@pytest.mark.parametrize("local", [True, False], ids=["file", "http"])
def test_any_name_is_opened_combined_and_read(tmp_path, range_server: RangeServer, name, local):
    pytest.importorskip("h5netcdf")
    made = xr.Dataset({"v": ("t", [1.0, 2.0])}, {"t": [0, 1]})
    folder = tmp_path / name
    folder.mkdir()
    path = folder / f"{name}.nc"
    made.to_netcdf(path, engine="h5netcdf")
    range_server.objects[f"{name}/{name}.nc"] = path.read_bytes()
    url = path if local else range_server.url(f"{name}/{name}.nc")
    virtual = vc.open_virtual_dataset(url)
    assert virtual.virtual.open()["v"].values.tolist() == [1, 2]
    cube = vc.open_virtual_mfdataset([url])
    read = xr.open_zarr(cube.virtual.to_store(), consolidated=False, zarr_format=3, chunks=None)
    assert read["v"].values.tolist() == [1, 2]
    if local:
        virtual.virtual.to_kerchunk(tmp_path / "refs.json", format="json")
        with xr.open_dataset(str(tmp_path / "refs.json"), engine="kerchunk") as read:
            assert read["v"].values.tolist() == [1, 2]


# ------------------------------------------------------------------------------------------- what is opened, in truth

_WATCHED: list[list[tuple[str, str]]] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _WATCHED and event in ("open", "socket.connect", "socket.getaddrinfo", "os.listdir", "os.scandir"):
        about = arguments[1] if event == "socket.connect" else arguments[0]
        _WATCHED[-1].append((event, os.fsdecode(about) if isinstance(about, str | bytes) else str(about)))


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """Record every file that Python or the HDF5 library is told to open, and every connection Python makes."""
    import h5py

    if not hasattr(_watch, "installed"):
        sys.addaudithook(_watch)  # it cannot be taken away again, only be given nothing to record
        _watch.installed = True  # type: ignore[attr-defined]
    opened: list[tuple[str, str]] = []
    original = h5py.File

    class Recording(original):  # type: ignore[misc, valid-type]
        def __init__(self, name: Any, *args: Any, **options: Any) -> None:
            opened.append(("h5py", str(name)))
            super().__init__(name, *args, **options)

    monkeypatch.setattr(h5py, "File", Recording)
    _WATCHED.append(opened)
    try:
        yield opened
    finally:
        _WATCHED.pop()


def test_parsing_and_reading_open_nothing_but_what_was_named(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=np.arange(8.0), chunks=(2,), compression="gzip")
        file.create_dataset("outside", (4,), "<i4", external=[("/proc/self/environ", 0, 16)])
        file["link"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/t")
        file["other link"] = h5py.ExternalLink("http://127.0.0.1:9/x.h5", "/t")
        layout = h5py.VirtualLayout((4,), "<i4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "t", shape=(4,))
        file.create_virtual_dataset("virtual", layout)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["t"] = np.arange(4, dtype="<i4")
    options: dict[str, Any] = {"drop_variables": ["outside", "virtual", "link", "other link"]}
    vc.open_virtual_dataset(path, **options).virtual.open().load()  # what is imported when it is first used
    with watched(monkeypatch) as opened:
        virtual = vc.open_virtual_dataset(path, **options)
        assert virtual.virtual.open()["v"].values.tolist() == list(range(8))
        zarr.open_group(virtual.virtual.to_store(), mode="r")["v"][:]
        xr.open_dataset(path, engine="virtualchunks", **options).load()
        for kept in ("outside", "virtual"):
            with pytest.raises(NotGrantedError):
                vc.open_virtual_dataset(path, drop_variables=[*set(options["drop_variables"]) - {kept}])
        with pytest.warns(UserWarning, match="link"):
            vc.open_virtual_dataset(path, drop_variables=["outside", "virtual"])
    folders = {"/", *path.as_posix().split("/")}  # a path is opened segment by segment
    assert {name for _, name in opened if name not in folders} == {str(path)}
    assert {event for event, _ in opened} <= {"open", "h5py"}

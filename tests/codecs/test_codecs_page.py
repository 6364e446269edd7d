"""Every codec that the package registers is described on the page of codecs, as it is."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from zarr.abc.codec import ArrayArrayCodec, ArrayBytesCodec, BytesBytesCodec

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs" / "reference" / "codecs.md").read_text(encoding="utf-8")
REGISTERED: dict[str, str] = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "entry-points"
]["zarr.codecs"]
KINDS = {"array to array": ArrayArrayCodec, "array to bytes": ArrayBytesCodec, "bytes to bytes": BytesBytesCodec}
#: A row of the table: name, kind, what it decodes, configuration, whether it encodes, what it needs.
ROW = re.compile(
    r"^\| \[`(virtualchunks\.\w+)`\]\(#([\w-]+)\) \|([^|]*)\|[^|]*\|([^|]*)\|([^|]*)\|[^|]*\|$", re.MULTILINE
)
ROWS = {name: tuple(map(str.strip, rest)) for name, *rest in ROW.findall(PAGE)}

#: Configurations with every member that there is.
WHOLE: dict[str, dict[str, Any]] = {
    "virtualchunks.hdf5_filters": {"filters": [{"id": 1, "cd_values": [4]}]},
    "virtualchunks.grib": {"field": 1, "read": "latitudes"},
    "virtualchunks.text_padding": {"pad": "space_pad"},
    "virtualchunks.offset_binary": {},
    "virtualchunks.strided": {"width": 4, "stride": 8, "count": 3},
    "virtualchunks.fits_logical": {},
    "virtualchunks.fits_bits": {"bits": 12},
    "virtualchunks.fits_text": {"width": 8, "decimals": 2, "null": "-"},
    "virtualchunks.fits_tile": {
        "algorithm": "RICE_1", "bitpix": 16, "parameters": {"blocksize": 32, "bytepix": 2}, "blank": 1
    },
    "virtualchunks.tiff": {
        "compression": 5, "bits": 16, "sample_format": 1, "width": 256, "samples": 3, "endian": "little", "predictor": 2
    },
    "virtualchunks.hdf4_rle": {},
}  # fmt: skip


def codec_class(name: str) -> Any:
    module, _, attribute = REGISTERED[name].partition(":")
    return getattr(import_module(module), attribute)


def codec(name: str) -> Any:
    configuration = WHOLE[name]
    return codec_class(name).from_dict({"name": name, **({"configuration": configuration} if configuration else {})})


def encodes(made: Any) -> bool:
    """Whether a codec encodes: one that does not says so before it looks at anything."""
    try:
        made._encode_sync(None, None)
    except NotImplementedError:
        return False
    except (AttributeError, TypeError):
        return True
    return True


def test_every_codec_is_on_the_page():
    assert set(ROWS) == set(REGISTERED)
    headings = {
        re.sub(r"[^\w -]", "", line[3:].lower()).replace(" ", "-") for line in PAGE.splitlines() if "##" in line
    }
    for name, (anchor, *_) in ROWS.items():
        assert anchor in headings, f"{name} leads to no heading"
        assert name in PAGE.partition("## Filters that Zarr")[2], f"{name} is in the table alone"


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_the_page_says_what_a_codec_is(name):
    _, kind, configuration, said = ROWS[name]
    assert issubclass(codec_class(name), KINDS[kind])
    made = codec(name)
    assert (said != "no") == encodes(made)
    documented = set(re.findall(r"`(\w+)`", configuration))
    assert set(made.to_dict().get("configuration", {})) | set(WHOLE[name]) <= documented
    for member in documented:
        assert PAGE.count(f"`{member}`") + PAGE.count(f'"{member}"') > 1, f"{member} of {name} is not explained"

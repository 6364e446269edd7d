"""FITS files written by astropy, and what astropy sees in files, by the names that the parser gives."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

#: For each BITPIX, the BZERO by which integers of the other signedness are written.
CONVENTION = {8: -(2**7), 16: 2**15, 32: 2**31, 64: 2**63}
NUMBERS = {"B": 8, "I": 16, "J": 32, "K": 64}


def names_of(hdus: fits.HDUList) -> list[str]:
    """Return the names of HDUs, as the parser gives them."""
    names: list[str] = []
    for index, hdu in enumerate(hdus):
        name, version = hdu.header.get("EXTNAME", hdu.name), hdu.header.get("EXTVER")
        name = name if isinstance(name, str) else ""
        if name and isinstance(version, int) and version > 1:
            name = f"{name}_{version}"
        name = (name or ("PRIMARY" if index == 0 else str(index))).replace("/", "_")
        while name in names:
            name = f"{name}_{index}"
        names.append(name)
    return names


def reference(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return what astropy reads: stored values, unsigned integers where the convention says so."""
    found: dict[str, npt.NDArray[Any]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            fits.open(path, memmap=False) as scaled,
            fits.open(path, memmap=False, do_not_scale_image_data=True) as raw,
        ):
            for name, one, other in zip(names_of(raw), scaled, raw, strict=True):
                if isinstance(other, fits.BinTableHDU | fits.TableHDU) and not isinstance(other, fits.CompImageHDU):
                    found |= {f"{name}/{key}": value for key, value in _columns(one)}
                elif other.header.get("NAXIS", 0) and not isinstance(other, fits.GroupsHDU):
                    found[name] = _image(one, other)
    return found


def _image(scaled: Any, raw: Any) -> npt.NDArray[Any]:
    if 0 in raw.shape:
        types = {8: "u1", 16: "i2", 32: "i4", 64: "i8", -32: "f4", -64: "f8"}
        return np.empty(raw.shape, types[raw.header["BITPIX"]])
    header = raw.header
    unsigned = header.get("BZERO") == CONVENTION.get(header["BITPIX"]) and header.get("BSCALE", 1) == 1
    return _native((scaled if unsigned else raw).data)


def _columns(hdu: Any) -> list[tuple[str, npt.NDArray[Any]]]:
    columns = []
    for place, column in enumerate(hdu.columns):
        code = column.format.lstrip(" 0123456789")[:1]
        if code in "PQ":
            continue
        name = (column.name or f"col{place + 1}").replace("/", "_")
        columns.append((name, _column(hdu, column, code)))
    return columns


def _column(hdu: Any, column: Any, code: str) -> npt.NDArray[Any]:
    stored = hdu.data.view(np.ndarray)[column.name]
    if isinstance(hdu, fits.TableHDU):
        return stored if code == "A" else _native(hdu.data.field(column.name))
    if code == "A":
        return stored.astype("S") if stored.dtype.kind == "U" else stored
    unsigned = column.bzero == CONVENTION.get(NUMBERS.get(code, 0)) and column.bscale in (None, "", 1)
    if unsigned and code == "B":  # astropy makes floats of signed bytes
        return (stored.astype("i2") - 128).astype("i1")
    if unsigned or code in "LX":
        return _native(hdu.data.field(column.name))
    values = _native(stored)
    return values.reshape(hdu.data.field(column.name).shape)


def _native(values: Any) -> npt.NDArray[Any]:
    plain = np.asarray(values)
    return plain.astype(plain.dtype.newbyteorder("="), copy=True)


def write(path: Path, *hdus: Any, primary: Any = None) -> Path:
    """Write HDUs behind a primary one."""
    fits.HDUList([primary if primary is not None else fits.PrimaryHDU(), *hdus]).writeto(path)
    return path


def images(path: Path) -> Path:
    """Write images of every type, among them unsigned, scaled, blank, empty and many-dimensional ones."""
    chance = np.random.default_rng(1)
    hdus = []
    for number, dtype in enumerate(("u1", "i2", "i4", "i8", "f4", "f8", "i1", "u2", "u4", "u8")):
        kind = np.dtype(dtype)
        values = chance.integers(0, 256, (3, 4, kind.itemsize), dtype="u1").view(kind)[..., 0]
        hdus.append(fits.ImageHDU(values if kind.kind != "f" else values * 0 + number / 7, name=f"T_{dtype}".upper()))
    scaled = fits.ImageHDU(np.arange(6, dtype="i2").reshape(1, 2, 3), name="SCALED")
    scaled.header.update({"BSCALE": 0.5, "BZERO": 10.0, "BLANK": 3, "BUNIT": "adu"})
    hdus.append(scaled)
    hdus.append(fits.ImageHDU(np.arange(16, dtype="f4").reshape(1, 2, 2, 4), name="FOUR"))
    hdus.append(fits.ImageHDU(np.arange(5, dtype="i4"), name="ONE"))
    return write(path, *hdus, primary=fits.PrimaryHDU(np.arange(4, dtype="i2").reshape(2, 2)))


def empty_axes(path: Path) -> Path:
    """Write an image with an axis of length zero, as AIPS does."""
    cards = [("SIMPLE", "T"), ("BITPIX", "-32"), ("NAXIS", "3"), ("NAXIS1", "777777701"), ("NAXIS2", "0")]
    text = "".join(f"{key:8}= {value:>20}".ljust(80) for key, value in [*cards, ("NAXIS3", "4")]) + "END".ljust(80)
    path.write_bytes(text.encode().ljust(2880))
    return path


def table(path: Path, rows: int = 7) -> Path:
    """Write a binary table with columns of every type of fixed width."""
    chance = np.random.default_rng(2)
    columns = [
        fits.Column("flag", "L", array=np.arange(rows) % 2 == 0),
        fits.Column("flags", "3L", array=chance.integers(0, 2, (rows, 3)).astype(bool)),
        fits.Column("bits", "11X", array=chance.integers(0, 2, (rows, 11)).astype(bool)),
        fits.Column("B", "B", array=np.arange(rows, dtype="u1"), unit="count"),
        fits.Column("I", "I", array=np.arange(rows, dtype="i2") - 3, null=-1),
        fits.Column("J", "4J", array=np.arange(4 * rows, dtype="i4").reshape(rows, 4)),
        fits.Column("K", "K", array=np.arange(rows) * 10**15),
        fits.Column("E", "E", array=np.linspace(-1, 1, rows, dtype="f4")),
        fits.Column("D", "6D", dim="(2,3)", array=np.arange(6.0 * rows).reshape(rows, 3, 2)),
        fits.Column("C", "C", array=(np.arange(rows) * (1 + 2j)).astype("c8")),
        fits.Column("M", "M", array=np.arange(rows) * (3 - 1j)),
        fits.Column("text", "8A", array=np.array([f"row {i}" for i in range(rows)])),
        fits.Column("U2", "I", bzero=2**15, array=np.arange(rows, dtype="u2") + 65000),
        fits.Column("U4", "J", bzero=2**31, array=np.arange(rows, dtype="u4") + np.uint32(4 * 10**9)),
        fits.Column("U8", "K", bzero=2**63, array=np.arange(rows, dtype="u8") + np.uint64(2**64 - 100)),
        fits.Column("I1", "B", bzero=-128, array=np.arange(rows, dtype="i1") - 100),
        fits.Column("scaled", "I", array=np.arange(rows, dtype="i2")),
        fits.Column("words", "12A", dim="(4,3)", array=np.array([["ab", "cde", "f"]] * rows)),
        fits.Column("GROUP/ID", "J", array=np.arange(rows, dtype="i4")),
    ]
    write(path, fits.BinTableHDU.from_columns(columns, name="EVENTS"))
    fits.setval(path, "TSCAL17", value=0.25, ext=1)
    fits.setval(path, "TZERO17", value=5, ext=1)
    return path


def odd_tables(path: Path) -> Path:
    """Write tables of one column, of one row, without rows, and with a column of no width."""
    one_column = fits.BinTableHDU.from_columns([fits.Column("x", "D", array=np.arange(9.0))], name="ONECOL")
    long = np.arange(40_000, dtype="f4")
    one_row = fits.BinTableHDU.from_columns(
        [fits.Column("a", "E", array=[1.5]), fits.Column("b", "40000E", array=[long])], name="ONEROW"
    )
    rows = fits.BinTableHDU.from_columns(
        [fits.Column("a", "I", array=[1, 2]), fits.Column("b", "40000E", array=[long, long + 1])], name="LONGROWS"
    )
    none = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=np.empty(0, "i4"))], name="NOROWS")
    thin = fits.BinTableHDU.from_columns(
        [fits.Column("a", "J", array=[1, 2]), fits.Column("none", "0D", array=np.empty((2, 0)))], name="NOWIDTH"
    )
    return write(path, one_column, one_row, rows, none, thin)


def ascii_table(path: Path) -> Path:
    """Write an ASCII table."""
    columns = [
        fits.Column("name", "A6", array=np.array(["alpha", "b", "gamma"])),
        fits.Column("count", "I5", array=np.array([1, -22, 333])),
        fits.Column("big", "I12", array=np.array([1, -(10**10), 5])),
        fits.Column("real", "F8.3", array=np.array([1.5, -2.25, 1000.125])),
        fits.Column("double", "D20.12", array=np.array([1e-10, 2.5e100, -3.0])),
    ]
    return write(path, fits.TableHDU.from_columns(columns, name="LIST"))


def headers(path: Path) -> Path:
    """Write a header with every kind of card."""
    hdu = fits.PrimaryHDU(np.arange(3, dtype="u1"))
    header = hdu.header
    header["OBJECT"] = ("M 13's core", "a comment / with a slash")
    header["EXPTIME"], header["COUNT"], header["GOOD"], header["WAVE"] = 1.5e-3, 12, True, 1 + 2j
    header["HIERARCH ESO DET CHIP"] = "long keyword"
    header["LONG"] = "0123456789 " * 15 + "end"
    header["EMPTY"] = ""
    header["NOVALUE"] = None
    for line in ("first line", "second line"):
        header["HISTORY"] = line
    header["COMMENT"] = "a remark"
    hdu.writeto(path)
    return path


def versions(path: Path) -> Path:
    """Write HDUs that share names, with and without versions, and one without data."""
    hdus = [fits.ImageHDU(np.full((2, 2), n, "i2"), name="SCI", ver=n) for n in (1, 2, 3)]
    hdus += [fits.ImageHDU(np.full((2, 2), n, "i2"), name="SAME") for n in (4, 5)]
    hdus += [fits.ImageHDU(np.full(2, 6, "i2")), fits.ImageHDU(name="DQ")]
    hdus[-1].header["ONLY"] = "cards"
    return write(path, *hdus)

"""Stamps: what a store says of the version of an object, and whether it is still the one that was parsed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from virtualchunks.sources import Stamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def stamp_of(meta: Mapping[str, Any]) -> Stamp:
    """The stamp in an obstore answer.

    Parameters
    ----------
    meta
        obstore's ``ObjectMeta``: ``size``, ``e_tag``, ``last_modified``, ``version``.

    Returns
    -------
    Stamp
        What the store said; what it did not say is None.

    Examples
    --------
    >>> stamp_of({"size": 3, "e_tag": '"a"', "last_modified": datetime(1970, 1, 2, tzinfo=UTC)})
    Stamp(size=3, etag='"a"', last_modified=86400000000000, version=None)
    """
    modified = meta.get("last_modified")
    return Stamp(
        size=meta.get("size"),
        etag=meta.get("e_tag"),
        last_modified=None if modified is None or modified <= _EPOCH else _nanoseconds(modified),
        version=meta.get("version"),
    )


def local_stamp(status: os.stat_result) -> Stamp:
    """The stamp of a local file: its etag tells apart all that the operating system can.

    A file that is rewritten, replaced by renaming, or whose times were put back differs in its etag, which holds inode,
    modification time, size and time of status change.

    Parameters
    ----------
    status
        Of the descriptor that is read from.

    Returns
    -------
    Stamp
        Size, etag and modification time.
    """
    parts = (status.st_ino, status.st_mtime_ns, status.st_size, status.st_ctime_ns)
    etag = "-".join(f"{part:x}" for part in parts)
    return Stamp(size=status.st_size, etag=etag, last_modified=status.st_mtime_ns)


def compare(recorded: Stamp | None, found: Stamp) -> str | None:
    """What differs between the stamp that was recorded and the one that was found.

    What one side lacks is not compared. Times and versions count only where one side has no etag: a store may rewrite
    an object with the same content.

    Parameters
    ----------
    recorded, found
        Stamps.

    Returns
    -------
    str or None
        ``"size was 10, is 12"``, or None where nothing differs.

    Examples
    --------
    >>> compare(Stamp(size=10, etag='"a"'), Stamp(size=10, etag='"b"'))
    'etag was "a", is "b"'
    """
    if recorded is None:
        return None
    pairs: list[tuple[str, Any, Any]] = [("size", recorded.size, found.size)]
    if recorded.etag is not None and found.etag is not None:
        if _opaque(recorded.etag) != _opaque(found.etag):
            pairs.append(("etag", recorded.etag, found.etag))
    else:
        pairs.append(("version", recorded.version, found.version))
        pairs.append(("last modified", recorded.last_modified, found.last_modified))
    differences = [
        f"{name} was {_shown(name, was)}, is {_shown(name, now)}"
        for name, was, now in pairs
        if was is not None and now is not None and was != now
    ]
    return "; ".join(differences) or None


def conditions(stamp: Stamp | None) -> dict[str, Any]:
    """The options of a GET that make a store refuse another version of the object than the stamped one.

    A weak etag cannot be asked for (``If-Match`` compares strongly and would always fail); then the time is.

    Parameters
    ----------
    stamp
        As recorded.

    Returns
    -------
    dict
        obstore's ``if_match`` or ``if_unmodified_since``, or nothing.

    Examples
    --------
    >>> conditions(Stamp(etag='"a"')), conditions(Stamp(size=3)), conditions(None)
    ({'if_match': '"a"'}, {}, {})
    """
    if stamp is None:
        return {}
    if stamp.etag is not None and not stamp.etag.startswith("W/"):
        return {"if_match": stamp.etag}
    if stamp.last_modified is not None:
        # obstore hands over microseconds and compares with what the store holds: round up, never down
        return {"if_unmodified_since": _EPOCH + timedelta(microseconds=stamp.last_modified // 1000 + 1)}
    return {}


def _nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def _opaque(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')


def _shown(name: str, value: Any) -> str:
    if name != "last modified":
        return str(value)
    return (_EPOCH + timedelta(microseconds=value // 1000)).isoformat()

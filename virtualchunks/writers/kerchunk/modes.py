"""Modes of writing references, as xarray means them."""

from __future__ import annotations

from typing import Literal

from virtualchunks.errors import UnsupportedFeatureError

#: ``"w"`` replaces what is there, ``"w-"`` refuses to, ``"a"`` adds to it.
KerchunkMode = Literal["w", "w-", "a"]


def resolved_mode(mode: KerchunkMode | None, append_dim: str | None = None) -> KerchunkMode:
    """Return the mode that a user means.

    Raises
    ------
    UnsupportedFeatureError
        If there is no such mode, or it contradicts appending.

    Examples
    --------
    >>> resolved_mode(None), resolved_mode(None, "time")
    ('w', 'a')
    """
    if mode is None:
        return "w" if append_dim is None else "a"
    if mode not in ("w", "w-", "a"):
        raise UnsupportedFeatureError(f"unknown mode {mode!r}; known are 'w', 'w-' and 'a'")
    if append_dim is not None and mode != "a":
        raise UnsupportedFeatureError(f"mode={mode!r} is not possible with append_dim; leave it out, or pass mode='a'")
    return mode

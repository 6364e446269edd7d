"""Redaction: what of a URL may stand in an error text or a log."""

from __future__ import annotations

import re

_USERINFO = re.compile(r"//[^/?#]*(?:@|%40)")


def redact(url: str) -> str:
    """A URL, or what should have been one, fit for an error text: on one line, without user info, query, fragment.

    Parameters
    ----------
    url
        Any text; this never raises.

    Examples
    --------
    >>> redact("https://user:password@host/a.nc?X-Amz-Signature=abc")
    'https://host/a.nc?…'
    """
    text = _USERINFO.sub("//", url)
    if "://" in text:
        bare = re.split(r"[?#]", text, maxsplit=1)[0]
        text = bare if bare == text else f"{bare}{text[len(bare)]}…"
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= 400 else f"{text[:200]}…{text[-100:]}"

"""XML elements: text that XML can hold, and elements opened and closed around what is streamed."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, tostring

from virtualchunks.errors import UnsupportedFeatureError

#: What no XML 1.0 document can hold, not even escaped.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: Marks a place in the text of an element; no text that is written holds it.
_MARK = "\0"


def is_legal(text: str) -> bool:
    """Return whether XML can hold a text.

    Examples
    --------
    >>> is_legal("temperature"), is_legal("a\\x00b")
    (True, False)
    """
    return _ILLEGAL.search(text) is None


def legal(text: str, what: str, path: str) -> str:
    """Return a text that XML can hold.

    Parameters
    ----------
    text
        The text.
    what, path
        What errors call it, and the array or group it belongs to.

    Raises
    ------
    UnsupportedFeatureError
        If XML cannot hold it.
    """
    if not is_legal(text):
        raise UnsupportedFeatureError(
            f"{what} of {path!r} is {text[:80]!r}, and XML, which DMR++ is, cannot hold all of its characters",
            variable=path,
        )
    return text


def serialised(element: Element) -> str:
    """Return an element as XML; carriage returns are escaped, since XML's readers take them for ends of lines."""
    return tostring(element, encoding="unicode").replace("\r", "&#13;")


def around(element: Element) -> tuple[str, str]:
    """Return what opens an element, with the children it has, and what closes it, for more to be put between.

    Examples
    --------
    >>> around(Element("Group", name="g"))
    ('<Group name="g">', '</Group>')
    """
    if len(element):
        element[-1].tail = _MARK
    else:
        element.text = _MARK
    opening, _, closing = serialised(element).partition(_MARK)
    return opening, closing

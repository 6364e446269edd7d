"""Header cards: 80 characters each, a keyword and its value, in blocks of 36.

What the keywords mean is the business of the other modules.

References
----------
FITS Standard 4.0, section 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from virtualchunks.errors import FormatError

CARD = 80
BLOCK = 2880
END = b"END     "

#: Keywords whose text is free, and of which there may be many.
COMMENTARY = ("COMMENT", "HISTORY", "")

#: Values that the tools of tile compression enter, beside which a second card may have the image's own.
PLACEHOLDERS = {"EXTNAME": "COMPRESSED_IMAGE"}

_STRING = re.compile(r"\s*'((?:[^']|'')*)'")
_INTEGER = re.compile(r"[+-]?\d+")
_REAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[EDed][+-]?\d+)?")
_COMPLEX = re.compile(rf"\(\s*({_REAL.pattern})\s*,\s*({_REAL.pattern})\s*\)")
_LONGEST_INTEGER = 4000


class Header(Mapping[str, Any]):
    """The cards of one header: values by keyword, the first where a keyword is repeated.

    Values are ``str``, ``bool``, ``int``, ``float`` or ``complex``. The lines of COMMENT and HISTORY are joined.
    Keywords without a value are left out.

    Parameters
    ----------
    values
        By keyword.
    url
        What errors name.
    index
        Number of the HDU, from 0.

    Examples
    --------
    >>> cards = [b"NAXIS   =                    2".ljust(80), b"OBJECT  = 'M 13    '           / a cluster".ljust(80)]
    >>> dict(Header.of_cards(b"".join(cards)))
    {'NAXIS': 2, 'OBJECT': 'M 13'}
    """

    def __init__(self, values: Mapping[str, Any], url: str = "", index: int = 0) -> None:
        self._values = dict(values)
        self._url = url
        self._index = index

    @classmethod
    def of_cards(cls, data: bytes, url: str = "", index: int = 0) -> Header:
        """Read the cards before END.

        Raises
        ------
        FormatError
            If they are not those of one header.
        """
        values: dict[str, Any] = {}
        commentary: dict[str, list[str]] = {}
        for keyword, value in _joined(_cards(data)):
            if keyword in COMMENTARY:
                commentary.setdefault(keyword, []).append(value)
            elif value is not None and (keyword not in values or values[keyword] == PLACEHOLDERS.get(keyword)):
                values[keyword] = value
        values.update({key: "\n".join(lines) for key, lines in commentary.items() if key and any(lines)})
        return cls(values, url, index)

    def __getitem__(self, keyword: str) -> Any:
        return self._values[keyword]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def integer(self, keyword: str, default: int | None = None, *, lowest: int = 0, highest: int = 2**63) -> int:
        """Return an integer within bounds, both included.

        Raises
        ------
        FormatError
            If the value is another, or there is none and no default.
        """
        value = self._values.get(keyword, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise self.wrong(keyword, f"an integer from {lowest} to {highest}")
        return value

    def number(self, keyword: str, default: float) -> int | float:
        """Return a number.

        Raises
        ------
        FormatError
            If the value is no number.
        """
        value = self._values.get(keyword, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.wrong(keyword, "a number")
        return value

    def text(self, keyword: str, default: str | None = None) -> str:
        """Return a character string.

        Raises
        ------
        FormatError
            If the value is none, or there is none and no default.
        """
        value = self._values.get(keyword, default)
        if not isinstance(value, str):
            raise self.wrong(keyword, "a character string")
        return value

    def wrong(self, keyword: str, expected: str) -> FormatError:
        """Return the error of a value that is not what the standard asks for."""
        found = repr(self._values[keyword]) if keyword in self._values else "nothing"
        return FormatError(f"HDU {self._index}: {keyword} must be {expected}, found {found}", url=self._url or None)


def _cards(data: bytes) -> Iterator[tuple[str, str]]:
    """Iterate over keywords and what stands behind them, value indicator included."""
    for start in range(0, len(data) - CARD + 1, CARD):
        card = data[start : start + CARD]
        if card.startswith(END):
            return
        if not card[:8].isascii() or not card[:8].decode().isprintable():
            raise FormatError(f"{card[:8]!r} is no keyword: the header is corrupt, or has no END")
        if start and card.startswith((b"SIMPLE  =", b"XTENSION=")):
            raise FormatError("a header runs into that of another HDU: it has no END, or is corrupt")
        text = card.decode("latin-1")
        keyword = text[:8].rstrip()
        if keyword == "HIERARCH" and "=" in text:
            name, _, rest = text[8:].partition("=")
            yield name.strip(), f"= {rest}"
        else:
            yield keyword, text[8:]


def _joined(cards: Iterator[tuple[str, str]]) -> Iterator[tuple[str, Any]]:
    """Iterate over keywords and values, long strings put together from their CONTINUE cards."""
    held: tuple[str, str] | None = None
    for keyword, rest in cards:
        if held is not None:
            string = _STRING.match(rest) if keyword == "CONTINUE" else None
            if string is not None:
                held = held[0], held[1].removesuffix("&") + _unquoted(string)
                if held[1].endswith("&"):
                    continue
            yield held
            held = None
            if string is not None:
                continue
        if keyword in COMMENTARY or not rest.startswith("="):
            yield (keyword, rest.rstrip()) if keyword in COMMENTARY else ("", rest)
            continue
        string = _STRING.match(rest[1:])
        if string is not None and _unquoted(string).endswith("&"):
            held = keyword, _unquoted(string)
        else:
            yield keyword, _value(rest[1:], string)
    if held is not None:
        yield held


def _unquoted(string: re.Match[str]) -> str:
    return string[1].replace("''", "'").rstrip()


def _value(text: str, string: re.Match[str] | None) -> Any:
    """Return the value of a card, ``None`` where it has none; what follows no rule is kept as text."""
    if string is not None:
        return _unquoted(string)
    field = text.partition("/")[0].strip()
    if field in ("T", "F"):
        return field == "T"
    if _INTEGER.fullmatch(field) and len(field) < _LONGEST_INTEGER:
        return int(field)
    if _REAL.fullmatch(field):
        return _float(field)
    pair = _COMPLEX.fullmatch(field)
    if pair is not None:
        return complex(_float(pair[1]), _float(pair[2]))
    return field or None


def _float(text: str) -> float:
    return float(text.upper().replace("D", "E"))

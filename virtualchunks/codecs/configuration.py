"""Reading the configuration of a codec: what a Zarr metadata document holds under the name of one of ours, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtualchunks.errors import FormatError


def read_configuration(
    document: Mapping[str, Any], name: str, required: frozenset[str], optional: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Return the configuration of the codec `name`.

    Parameters
    ----------
    document
        ``{"name": …, "configuration": {…}}``.
    name
        What the codec is called.
    required, optional
        The parameters that it has.

    Raises
    ------
    FormatError
        If the document is that of another codec, or parameters are missing or unknown.

    Examples
    --------
    >>> read_configuration({"name": "a", "configuration": {"width": 3}}, "a", frozenset({"width"}))
    {'width': 3}
    """
    configuration = document.get("configuration", {})
    if document.get("name") != name or not isinstance(configuration, Mapping):
        raise FormatError(f"not the metadata of a codec {name}: {document!r}")
    if not required <= set(configuration) <= required | optional:
        expected = ", ".join(sorted(required | optional)) or "no parameters"
        raise FormatError(f"codec {name}: expected {expected}, got {sorted(configuration)}")
    return dict(configuration)


def require_integer(name: str, parameter: str, value: object, lowest: int, highest: int = 2**63 - 1) -> int:
    """Return a parameter that is an integer within bounds, both included.

    Raises
    ------
    FormatError
        If it is anything else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise FormatError(f"codec {name}: {parameter} must be an integer from {lowest} to {highest}, got {value!r}")
    return value

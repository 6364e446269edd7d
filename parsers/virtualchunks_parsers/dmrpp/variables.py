"""What the variables of a DMR++ are: their types, dimensions and attributes.

References
----------
DAP4 Specification, volume 1, "The DAP4 Dataset Metadata Response": dimensions, atomic types, enumerations, structures,
attributes, and fully qualified names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from virtualchunks.errors import FormatError, UnsupportedFeatureError
from virtualchunks_parsers.dmrpp.document import LARGEST, NUMBER, Element

DType = np.dtype[Any]

#: Atomic types of numbers.
NUMBERS: Mapping[str, DType] = {
    "Byte": np.dtype("u1"),
    "UInt8": np.dtype("u1"),
    "Char": np.dtype("u1"),
    "Int8": np.dtype("i1"),
    "Int16": np.dtype("<i2"),
    "UInt16": np.dtype("<u2"),
    "Int32": np.dtype("<i4"),
    "UInt32": np.dtype("<u4"),
    "Int64": np.dtype("<i8"),
    "UInt64": np.dtype("<u8"),
    "Float32": np.dtype("<f4"),
    "Float64": np.dtype("<f8"),
}
TEXT = frozenset({"String", "URL", "URI"})
#: Types that hold no values which chunks of one size could hold.
WITHOUT_SIZE = {
    "Opaque": "opaque values, whose length a DMR++ does not say",
    "Sequence": "a sequence, which has no shape",
    "Grid": "a grid, which DAP4 has no more",
}
VARIABLES = frozenset({*NUMBERS, *TEXT, *WITHOUT_SIZE, "Enum", "Structure"})
MOST_DIMENSIONS = 32
#: Numbers in one structure. A member that is an array becomes a structure of its elements.
MOST_MEMBERS = 1024


@dataclass(eq=False)
class Scope:
    """One group, as names are looked up from it.

    Attributes
    ----------
    path
        Path of the group; empty for the root.
    above
        The group that holds it.
    dimensions, enumerations
        What it declares: sizes, and the types that enumerations are stored as.
    anonymous
        Names given to dimensions without one, by size.
    """

    path: str = ""
    above: Scope | None = None
    dimensions: dict[str, int] = field(default_factory=dict)
    enumerations: dict[str, DType] = field(default_factory=dict)
    groups: dict[str, Scope] = field(default_factory=dict)
    anonymous: dict[int, list[str]] = field(default_factory=dict)

    @property
    def root(self) -> Scope:
        """The root group."""
        return self if self.above is None else self.above.root

    def find(self, name: str, kind: str) -> Any:
        """Return a declaration by its fully qualified name, or by a name in this group or one above it."""
        path, _, last = name.rpartition("/")
        if not name.startswith("/"):
            scope: Scope | None = self
            while scope is not None:
                found = scope._at(path, last, kind)
                if found is not None:
                    return found
                scope = scope.above
            return None
        return self.root._at(path, last, kind)

    def _at(self, path: str, name: str, kind: str) -> Any:
        scope: Scope | None = self
        for step in filter(None, path.split("/")):
            scope = None if scope is None else scope.groups.get(step)
        return None if scope is None else getattr(scope, kind).get(name)

    def anonymous_name(self, size: int, used: set[str]) -> str:
        """Return a name for a dimension that has none: the same for one size, unless a variable has it already."""
        names = self.anonymous.setdefault(size, [])
        for name in names:
            if name not in used:
                return name
        count = sum(map(len, self.anonymous.values()))
        names.append(f"phony_dim_{count}")
        return names[-1]


@dataclass(frozen=True, eq=False)
class Variable:
    """A variable: what it is, apart from where its values are.

    Attributes
    ----------
    element
        Its element.
    path
        Its path in the document.
    shape, names
        Lengths and names of its dimensions.
    dtype
        dtype of its values in little-endian order; ``None`` for text, whose length storage tells.
    url
        The document, for errors.
    """

    element: Element
    path: str
    shape: tuple[int, ...]
    names: tuple[str, ...]
    dtype: DType | None
    url: str

    @property
    def is_text(self) -> bool:
        """Whether its values are text."""
        return self.element.name in TEXT

    def corrupt(self, problem: str) -> FormatError:
        """Return the error for what is wrong with it."""
        text = f"{problem}: {self.path!r}, line {self.element.line}, is corrupt"
        return FormatError(text, url=self.url, variable=self.path)


def declare(scope: Scope, element: Element, url: str) -> None:
    """Enter the dimensions and enumerations of a group and of all below it.

    Raises
    ------
    FormatError
        If one lacks its name or its size.
    """
    for child in element.of("Dimension"):
        scope.dimensions[name_of(child, url)] = whole_number(child.attributes.get("size"), child, url)
    for child in element.of("Enumeration"):
        base = NUMBERS.get(child.attributes.get("basetype", ""))
        if base is not None and base.kind in "iu":
            scope.enumerations[name_of(child, url)] = base
    for child in element.of("Group"):
        name = name_of(child, url)
        scope.groups[name] = Scope(f"{scope.path}/{name}", scope)
        declare(scope.groups[name], child, url)


def variable_of(element: Element, scope: Scope, url: str) -> Variable:
    """Return what a variable is.

    Raises
    ------
    UnsupportedFeatureError
        If it has a type that arrays of chunks cannot have.
    FormatError
        If it has dimensions that are not declared.
    """
    path = f"{scope.path}/{name_of(element, url)}"
    shape, names = _dimensions(element, scope, url)
    if len(shape) > MOST_DIMENSIONS:
        raise UnsupportedFeatureError(f"{len(shape)} dimensions; at most {MOST_DIMENSIONS} are read")
    return Variable(element, path, shape, names, _dtype(element, scope, url), url)


def _dimensions(element: Element, scope: Scope, url: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    shape: list[int] = []
    names: list[str] = []
    for child in element.of("Dim"):
        name = child.attributes.get("name")
        if name is None:
            size = whole_number(child.attributes.get("size"), child, url)
            names.append(scope.anonymous_name(size, set(names)))
        else:
            size = scope.find(name, "dimensions")
            if size is None:
                raise FormatError(f"the dimension {name!r}, line {child.line}, is not declared", url=url)
            names.append(name.rpartition("/")[2])
        shape.append(size)
    return tuple(shape), tuple(names)


def _dtype(element: Element, scope: Scope, url: str) -> DType | None:
    name = element.name
    if name in WITHOUT_SIZE:
        raise UnsupportedFeatureError(WITHOUT_SIZE[name])
    if name in TEXT:
        return None
    if name == "Structure":
        return _structure(element, scope, url)
    if name != "Enum":
        return NUMBERS[name]
    base: DType | None = scope.find(element.attributes.get("enum", ""), "enumerations")
    if base is None:
        raise UnsupportedFeatureError(f"the enumeration {element.attributes.get('enum', '')!r}, which is not declared")
    return base


def _structure(element: Element, scope: Scope, url: str) -> DType:
    """The packed dtype of a structure; ``structOffset`` tells whether it is stored so."""
    members: list[tuple[str, DType]] = []
    total = 0
    for child in element.of(*VARIABLES):
        name, dtype = name_of(child, url), _dtype(child, scope, url)
        if dtype is None:
            raise UnsupportedFeatureError(f"the field {name!r} is text, whose length a DMR++ does not say")
        count = math.prod(_dimensions(child, scope, url)[0])
        total += count * _count_numbers(dtype)
        if not 0 < total <= MOST_MEMBERS:
            raise UnsupportedFeatureError(f"a structure of {total} numbers up to the field {name!r}")
        if child.first("Dim") is not None:
            dtype = np.dtype([(str(number), dtype) for number in range(count)])
        members.append((name, dtype))
    if not members or len({name for name, _ in members}) < len(members):
        raise UnsupportedFeatureError("a structure without fields, or with two of one name")
    return np.dtype(members)


def _count_numbers(dtype: DType) -> int:
    if dtype.fields is None:
        return 1
    return sum(_count_numbers(field[0]) for field in dtype.fields.values())


def name_of(element: Element, url: str) -> str:
    """Return the name of a declaration.

    Raises
    ------
    FormatError
        If it has none.
    """
    name = element.attributes.get("name")
    if not name:
        raise FormatError(f"the {element.name} in line {element.line} has no name", url=url)
    return name


def whole_number(text: str | None, element: Element, url: str) -> int:
    """Return a size.

    Raises
    ------
    FormatError
        If it is none.
    """
    if text is None or NUMBER.fullmatch(text.strip()) is None or int(text) > LARGEST:
        raise FormatError(f"the {element.name} in line {element.line} has the size {text!r}", url=url)
    return int(text)


# ------------------------------------------------------------------------------------------------------- attributes


def attributes_of(element: Element) -> dict[str, Any]:
    """Return the attributes of a group or variable: numbers and text, lists of them, and dictionaries for containers.

    A value that is not of its attribute's type is kept as text.
    """
    found: dict[str, Any] = {}
    for child in element.of("Attribute"):
        name = child.attributes.get("name")
        if not name:
            continue
        if child.attributes.get("type") == "Container":
            found[name] = attributes_of(child)
        elif child.attributes.get("type") != "OtherXML":
            found[name] = _values(child)
            if name in ("scale_factor", "add_offset") and isinstance(found[name], float):
                found[name] = NUMBERS[child.attributes["type"]].type(found[name])  # xarray unpacks in its dtype
    return found


def _values(element: Element) -> Any:
    convert = CONVERTERS.get(element.attributes.get("type", ""), str)
    values = [_converted(child.attributes.get("value", child.text), convert) for child in element.of("Value")]
    if len(values) == 1:
        return values[0]
    return values if values or convert is not str else ""


def _converted(text: str, convert: Callable[[str], Any]) -> Any:
    try:
        return convert(text)
    except ValueError:
        return text


def _integer(text: str) -> int:
    if re.fullmatch(r"\s*[+-]?[0-9]{1,20}\s*", text) is None:
        raise ValueError(text)
    return int(text)


CONVERTERS: Mapping[str, Callable[[str], Any]] = {
    name: float if dtype.kind == "f" else _integer for name, dtype in NUMBERS.items()
}

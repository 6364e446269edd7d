"""Templates and generators of a Kerchunk document, expanded without a template engine.

Specification: https://fsspec.github.io/kerchunk/spec.html, version 1. Between double braces may stand: the name of a
template or of a dimension, a template called with constants, integer arithmetic (``+ - * // %`` and parentheses), and a
number formatted by ``"%03d" % i``. That is all that the specification shows and tools write; anything else is refused.
The expressions are read by Python's own grammar and never evaluated by it.
"""

from __future__ import annotations

import ast
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from virtualchunks.errors import FormatError, LimitExceededError, UnsupportedFeatureError

#: Most references that the generators of one document may stand for.
MOST_GENERATED = 1_000_000
#: Longest text that a template may grow to, in characters.
LONGEST = 2_048
#: Most templates within each other.
DEEPEST = 8

_BRACES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_LARGEST = 2**63
_FORMAT = re.compile(r"[^%]*%0?[0-9]{0,2}d[^%]*")

Value = int | str
Variables = Mapping[str, Value]

_ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
}


class Templates:
    """The templates that a document declares.

    Parameters
    ----------
    declared
        Their texts by name.

    Raises
    ------
    FormatError
        If one is not text.

    Examples
    --------
    >>> templates = Templates({"u": "s3://bucket/path", "f": "{{u}}/{{c}}"})
    >>> templates.expand("{{u}}/a.nc"), templates.expand("{{ f(c='b') }}.nc")
    ('s3://bucket/path/a.nc', 's3://bucket/path/b.nc')
    """

    def __init__(self, declared: Any = None) -> None:
        known = {} if declared is None else declared
        if not isinstance(known, Mapping) or not all(isinstance(text, str) for text in known.values()):
            raise FormatError("the templates of a Kerchunk document are texts by name")
        self._texts: Mapping[str, str] = known

    def __bool__(self) -> bool:
        return bool(self._texts)

    def expand(self, text: str, variables: Variables | None = None, depth: int = 0) -> str:
        """Put values in the place of what stands between double braces.

        Parameters
        ----------
        text
            Any text.
        variables
            Values beside the templates.
        depth
            How many templates the text is within.

        Raises
        ------
        UnsupportedFeatureError
            If an expression is none of those known here.
        LimitExceededError
            If the text grows too long, or templates lie too deep.
        """
        if "{{" not in text:
            return text
        if depth > DEEPEST:
            raise LimitExceededError(f"templates more than {DEEPEST} deep within each other, or within themselves")
        known: Variables = {} if variables is None else variables
        expanded = _BRACES.sub(lambda found: str(self._value(found[1], known, depth)), text)
        if len(expanded) > LONGEST:
            raise LimitExceededError(f"a template expands to {len(expanded)} characters; the most is {LONGEST}")
        return expanded

    def _value(self, source: str, variables: Variables, depth: int) -> Value:
        try:
            tree = ast.parse(source.strip(), mode="eval")
            return self._evaluate(tree.body, variables, depth)
        except (SyntaxError, ZeroDivisionError, ValueError, RecursionError, MemoryError) as error:
            if isinstance(error, LimitExceededError | FormatError):
                raise
            raise _unknown(source) from error

    def _evaluate(self, node: ast.expr, variables: Variables, depth: int) -> Value:
        match node:
            case ast.Constant(value=int() | str() as value) if not isinstance(value, bool):
                return value
            case ast.Name(id=name):
                return self._named(name, variables, depth)
            case ast.Call(func=ast.Name(id=name), args=[], keywords=keywords):
                arguments = {str(keyword.arg): self._evaluate(keyword.value, variables, depth) for keyword in keywords}
                return self._named(name, {**variables, **arguments}, depth)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -_integer(self._evaluate(operand, variables, depth))
            case ast.BinOp(left=left, op=op, right=right):
                return _operate(op, self._evaluate(left, variables, depth), self._evaluate(right, variables, depth))
        raise UnsupportedFeatureError(f"the expression {ast.unparse(node)!r} of a Kerchunk template is not understood")

    def _named(self, name: str, variables: Variables, depth: int) -> Value:
        if name in variables:
            return variables[name]
        if name not in self._texts:
            known = ", ".join([*self._texts, *variables]) or "none"
            raise UnsupportedFeatureError(f"{name!r} is no template of the Kerchunk document; declared are {known}")
        return self.expand(self._texts[name], variables, depth + 1)


def generate(templates: Templates, generators: Any) -> Iterator[tuple[str, list[Any]]]:
    """Iterate over the references that generators stand for: key, and URL with offset and length.

    Parameters
    ----------
    templates
        Those of the document.
    generators
        Its ``gen``: a list of objects with ``key``, ``url``, ``dimensions`` and, unless whole objects are meant,
        ``offset`` and ``length``.

    Raises
    ------
    FormatError
        If one is not formed as specified.
    LimitExceededError
        If they stand for more than :data:`MOST_GENERATED` references.

    Examples
    --------
    >>> one = {"key": "v/{{i}}", "url": "s3://b/{{i}}.nc", "offset": "{{i * 10}}", "length": "10"}
    >>> list(generate(Templates(), [{**one, "dimensions": {"i": [0, 1]}}]))
    [('v/0', ['s3://b/0.nc', 0, 10]), ('v/1', ['s3://b/1.nc', 10, 10])]
    """
    if not isinstance(generators, Sequence) or isinstance(generators, str):
        raise FormatError("the 'gen' of a Kerchunk document is a list")
    ranges = [_dimensions(generator) for generator in generators]
    total = sum(math.prod(map(len, values.values())) for values in ranges)
    if total > MOST_GENERATED:
        raise LimitExceededError(f"generators that stand for {total:,} references; the most is {MOST_GENERATED:,}")
    for generator, values in zip(generators, ranges, strict=True):
        for chosen in itertools.product(*values.values()):
            yield _reference(templates, generator, dict(zip(values, chosen, strict=True)))


def _reference(templates: Templates, generator: Mapping[str, Any], variables: Variables) -> tuple[str, list[Any]]:
    key, url = (templates.expand(_text(generator, name), variables) for name in ("key", "url"))
    if "offset" not in generator and "length" not in generator:
        return key, [url]
    return key, [url, *(_number(templates, generator, name, variables) for name in ("offset", "length"))]


def _text(generator: Mapping[str, Any], name: str) -> str:
    value = generator.get(name)
    if not isinstance(value, str):
        raise FormatError(f"a generator of a Kerchunk document needs a text {name!r}, found {value!r}")
    return value


def _number(templates: Templates, generator: Mapping[str, Any], name: str, variables: Variables) -> int:
    value = generator.get(name)
    text = templates.expand(value, variables) if isinstance(value, str) else value
    if isinstance(text, str) and re.fullmatch(r"[0-9]{1,19}", text):
        return int(text)
    if type(text) is int:
        return text
    raise FormatError(f"the {name!r} of a generator is no number: {value!r}")


def _dimensions(generator: Any) -> dict[str, Sequence[Value]]:
    if not isinstance(generator, Mapping) or not isinstance(generator.get("dimensions"), Mapping):
        raise FormatError("a generator of a Kerchunk document is an object with 'key', 'url' and 'dimensions'")
    return {str(name): _range(name, value) for name, value in generator["dimensions"].items()}


def _range(name: str, value: Any) -> Sequence[Value]:
    if isinstance(value, list) and all(type(item) in (int, str) for item in value):
        return value
    if isinstance(value, Mapping) and set(value) <= {"start", "stop", "step"} and "stop" in value:
        bounds = (value.get("start", 0), value["stop"], value.get("step", 1))
        if all(type(bound) is int and abs(bound) < _LARGEST for bound in bounds) and bounds[2] != 0:
            return range(*bounds)
    raise FormatError(
        f"the dimension {name!r} of a generator is a list of values, or an object with 'stop' and perhaps 'start' and "
        f"'step'; found {value!r}"
    )


def _integer(value: Value) -> int:
    if isinstance(value, str):
        raise FormatError(f"a template calculates with {value!r}, which is no number")
    return value


def _operate(op: ast.operator, left: Value, right: Value) -> Value:
    if isinstance(left, str) and isinstance(op, ast.Mod) and isinstance(right, int) and _FORMAT.fullmatch(left):
        return left % right
    if type(op) not in _ARITHMETIC:
        raise UnsupportedFeatureError(
            f"templates may add, subtract, multiply, divide by // and %, not {type(op).__name__}"
        )
    result = _ARITHMETIC[type(op)](_integer(left), _integer(right))
    if abs(result) >= _LARGEST:
        raise LimitExceededError("a template calculates a number of more than 63 bits")
    return result


def _unknown(source: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        f"the expression {source.strip()[:80]!r} of a Kerchunk template is not understood: only declared names, calls "
        "of templates with constants, and integer arithmetic are"
    )

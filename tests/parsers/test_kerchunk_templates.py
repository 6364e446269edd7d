"""Templates and generators: as the specification's example says and Jinja does; nothing else, and within bounds."""

from __future__ import annotations

from typing import Any

import fsspec
import pytest

from virtualchunks.errors import FormatError, LimitExceededError, UnsupportedFeatureError
from virtualchunks_parsers.kerchunk import templates as module
from virtualchunks_parsers.kerchunk.document import Document
from virtualchunks_parsers.kerchunk.templates import Templates, generate

SPECIFICATION = {
    "version": 1,
    "templates": {"u": "server.domain/path", "f": "{{c}}"},
    "gen": [
        {
            "key": "gen_key{{i}}",
            "url": "http://{{u}}_{{i}}",
            "offset": "{{(i + 1) * 1000}}",
            "length": "1000",
            "dimensions": {"i": {"stop": 5}},
        }
    ],
    "refs": {
        "key0": "data",
        "key1": ["http://target_url", 10000, 100],
        "key2": ["http://{{u}}", 10000, 100],
        "key3": ["http://{{f(c='text')}}", 10000, 100],
    },
}


def expanded(content: dict[str, Any]) -> dict[str, Any]:
    document = Document.from_mapping(content, "test")
    return {
        key: [document.templates.expand(value[0]), *value[1:]] if isinstance(value, list) else value
        for key, value in document.references.items()
    }


def by_jinja(content: dict[str, Any]) -> dict[str, Any]:
    pytest.importorskip("jinja2")
    filesystem = fsspec.filesystem("reference", fo=content, simple_templates=False, target_protocol="http")
    return {
        key: list(value) if isinstance(value, list | tuple) else value for key, value in filesystem.references.items()
    }


def test_the_example_of_the_specification() -> None:
    found = expanded(SPECIFICATION)
    assert found["key2"] == ["http://server.domain/path", 10000, 100]
    assert found["key3"] == ["http://text", 10000, 100]
    assert found["gen_key4"] == ["http://server.domain/path_4", 5000, 1000]
    assert found == by_jinja(SPECIFICATION)


@pytest.mark.parametrize(
    "generator",
    [
        {"dimensions": {"i": {"start": 2, "stop": 9, "step": 3}, "j": {"stop": 2}}},
        {"dimensions": {"i": [5, 1, 3], "j": [0]}},
        {"dimensions": {"i": [7], "j": [2]}, "offset": "{{ -i + j * 10 + 7 // 2 % 3 }}"},
        {"dimensions": {"i": [7], "j": [2]}, "url": "http://h/{{ '%03d' % i }}-{{'%d' % (i + j)}}"},
        {"dimensions": {"i": [7], "j": [2]}, "url": "http://{{f(c=i)}}/{{u}}"},
    ],
)
def test_generators_are_as_by_jinja(generator: dict[str, Any]) -> None:
    plain = {"key": "v/{{i}}.{{j}}", "url": "http://{{u}}/{{i}}", "offset": "{{i * 10 + j}}", "length": "{{4 * 2}}"}
    content = {**SPECIFICATION, "gen": [{**plain, **generator}]}
    assert expanded(content) == by_jinja(content)


def test_generators_of_whole_objects() -> None:
    one = {"key": "v/{{i}}", "url": "s3://b/{{i}}", "dimensions": {"i": {"stop": 2}}}
    assert list(generate(Templates(), [one])) == [("v/0", ["s3://b/0"]), ("v/1", ["s3://b/1"])]


@pytest.mark.parametrize(
    "expression",
    [
        "i ** 9",
        "i.real",
        "i[0]",
        "open('x')",
        "f('x')",
        "f(**u)",
        "i if i else u",
        "u | upper",
        "[i]",
        "nothing",
        "lambda: i",
        "i / 2",
        "'a' + 'b'",
        "'%s' % u",
        "'%999d' % i",
        "",
        "1 +",
        "i // 0",
        "__import__('os')",
        "True",
        "1.5",
        "f'{i}'",
    ],
)
def test_other_expressions_are_refused(expression: str) -> None:
    templates = Templates({"u": "x", "f": "{{c}}"})
    with pytest.raises((UnsupportedFeatureError, FormatError)):
        templates.expand("{{" + expression + "}}", {"i": 3})


@pytest.mark.parametrize(
    "declared",
    [{"a": "{{a}}"}, {"a": "{{b}}", "b": "{{a}}"}, {"a": "{{b}}{{b}}", "b": "x" * 2_000}],
)
def test_templates_do_not_grow_without_end(declared: dict[str, str]) -> None:
    with pytest.raises(LimitExceededError):
        Templates(declared).expand("{{a}}")


def test_limits_one_below_and_one_above(monkeypatch: pytest.MonkeyPatch) -> None:
    one: dict[str, Any] = {
        "key": "v/{{i}}.{{j}}",
        "url": "s3://b/k",
        "dimensions": {"i": {"stop": 2}, "j": {"stop": 5}},
    }
    monkeypatch.setattr(module, "MOST_GENERATED", 10)
    assert len(list(generate(Templates(), [one]))) == 10
    monkeypatch.setattr(module, "MOST_GENERATED", 9)
    with pytest.raises(LimitExceededError, match="10 references; the most is 9"):
        list(generate(Templates(), [one]))
    with pytest.raises(LimitExceededError):
        list(generate(Templates(), [{**one, "dimensions": {"i": {"stop": 10**18}}}]))
    with pytest.raises(LimitExceededError):
        Templates().expand("{{i * i}}", {"i": 2**62})


@pytest.mark.parametrize(
    "generators",
    [
        5,
        "x",
        [5],
        [{}],
        [{"key": "k", "url": "u", "dimensions": 5}],
        [{"key": "k", "url": "u", "dimensions": {"i": 5}}],
        [{"key": "k", "url": "u", "dimensions": {"i": {"stop": 2.5}}}],
        [{"key": "k", "url": "u", "dimensions": {"i": {}}}],
        [{"key": "k", "url": "u", "dimensions": {"i": {"stop": 1, "step": 0}}}],
        [{"url": "u", "dimensions": {"i": [1]}}],
        [{"key": "k", "url": "u", "offset": "x", "length": "1", "dimensions": {"i": [1]}}],
    ],
)
def test_generators_that_are_none_are_refused(generators: Any) -> None:
    with pytest.raises(FormatError):
        list(generate(Templates(), generators))


@pytest.mark.parametrize("declared", [5, ["a"], {"a": 5}])
def test_templates_that_are_none_are_refused(declared: Any) -> None:
    with pytest.raises(FormatError, match="templates"):
        Templates(declared)


def test_braces_without_templates_are_names() -> None:
    content = {"version": 1, "refs": {"v/0": ["s3://b/{{u}}", 0, 1]}}
    document = Document.from_mapping(content, "test")
    assert not document.templates

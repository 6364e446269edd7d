"""Write ``docs/formats.md`` from what the parsers and writers say of themselves.

``python docs/generate.py`` writes the page; ``--check`` says whether it is up to date, and exits with 1 where it is
not.
"""

from __future__ import annotations

import importlib
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "formats.md"
sys.path[:0] = [str(ROOT), str(ROOT / "parsers")]

INTRODUCTION = """# Formats

This page is generated from what the parsers and writers say of themselves (`python docs/generate.py`).

## Read

One array that cannot be expressed never fails the file: it is left out, with one warning that names it and says why.
With `strict=True` it raises instead. A file whose structure is damaged is refused as a whole.

Where a format is read by a library of native code, a file that is damaged, or made for it, can make that library end
the process, or never return; each such format says so below. For files that nobody vouches for, `isolate=True` parses
in a process of its own, with limits on time and memory:
[a file that breaks its reader](explanation/stamps-and-safety.md#a-file-that-breaks-its-reader). Values of most formats
are decoded by native code too, when they are read, in the process that reads them.

The folder `examples/` of the project has a short script for each main format (`read_netcdf4.py`, `read_geotiff.py`, …):
it makes a file, opens it virtually, and compares its values with those of the format's own library.
"""

ISOLATE = "With `isolate=True` that is a `ParserCrashedError`."

WRITTEN = """
## Written

What a form cannot hold is refused by name before anything is written.

"""


def main() -> int:
    """Write the page, or compare it."""
    text = page()
    if "--check" not in sys.argv:
        PAGE.write_text(text)
        return 0
    if PAGE.read_text() == text:
        return 0
    print("docs/formats.md is not what the code says: run python docs/generate.py")
    return 1


def page() -> str:
    """Return the whole page."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    parsers = project["entry-points"]["virtualchunks.parsers"]
    sections = [section(name, load(target)) for name, target in sorted(parsers.items())]
    forms = importlib.import_module("virtualchunks.writers").FORMS
    return INTRODUCTION + "".join(sections) + WRITTEN + table(forms) + "\n"


def load(target: str) -> Any:
    """Return what an entry point names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def section(name: str, parser: Any) -> str:
    """Return the section of one parser."""
    suffixes = ", ".join(f"`{suffix}`" for suffix in parser.suffixes)
    by_name = f", or by the suffixes {suffixes}" if suffixes else ""
    path = f"{parser.__module__.removesuffix('.parser')}.{parser.__name__}"
    lines = [
        "",
        f"### {parser.name}",
        "",
        f"Parser `{name}` (`{path}`), found by content{by_name}.",
        "",
        "Reads",
        "",
        *(f"- {feature}" for feature in parser.reads),
        "",
        "Refuses by name",
        "",
        *(f"- {feature}" for feature in parser.refuses),
        "",
        *native_code(getattr(parser, "native_code", "")),
    ]
    return "\n".join(lines)


def native_code(risk: str) -> list[str]:
    """Return the lines on the native library of a parser, if it has one."""
    return ["Native code", "", f"- {risk} {ISOLATE}", ""] if risk else []


def table(forms: dict[str, dict[str, str]]) -> str:
    """Return the table of what each written form holds."""
    features = list(dict.fromkeys(feature for form in forms.values() for feature in form))
    rows = [["", *forms], ["---"] * (len(forms) + 1)]
    rows += [[feature, *(form.get(feature, "no") for form in forms.values())] for feature in features]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    raise SystemExit(main())

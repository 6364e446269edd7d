"""Show the docstrings' cross-references in the docs: mkdocstrings reads Markdown, and the roles are Sphinx's.

``:class:`~virtualchunks.grid.Axis` `` becomes ``Axis`` in code type, and a lone ``::`` before a drawing disappears.
"""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:mod|class|func|meth|attr|data|exc):`(?P<tilde>~?)(?P<target>[^`]+)`")
LITERAL = re.compile(r"^[ ]*::[ ]*\n", re.MULTILINE)


def as_markdown(text: str) -> str:
    """Return a docstring without Sphinx's roles and literal markers.

    >>> as_markdown("See :class:`~virtualchunks.grid.Axis` and :mod:`virtualchunks.urls`.")
    'See `Axis` and `virtualchunks.urls`.'
    """
    return LITERAL.sub("", ROLE.sub(_in_code, text))


def _in_code(match: re.Match[str]) -> str:
    target = match["target"]
    return f"`{target.rpartition('.')[2] if match['tilde'] else target}`"


class Roles(griffe.Extension):
    """A griffe extension that rewrites every docstring as it is collected."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

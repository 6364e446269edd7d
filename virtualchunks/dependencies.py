"""Optional libraries: imported when they are needed; a missing one is an error that names the extra that brings it."""

from __future__ import annotations

import importlib
from typing import Any

from virtualchunks.errors import MissingDependencyError


def required(purpose: str, extra: str, module: str, *parts: str) -> Any:
    """Return an optional library.

    Parameters
    ----------
    purpose
        What is not possible without it, as the beginning of a sentence: ``"writing Parquet needs pyarrow"``.
    extra
        The extra of this package that brings it.
    module
        Its name.
    *parts
        Modules of it that are imported as well.

    Raises
    ------
    MissingDependencyError
        If it is not installed.

    Examples
    --------
    >>> required("counting needs math", "all", "math").pi > 3
    True
    """
    try:
        library = importlib.import_module(module)
        for part in parts:
            importlib.import_module(part)
    except ImportError as error:
        raise MissingDependencyError(f"{purpose}: pip install 'virtualchunks[{extra}]'") from error
    return library

"""What the user named in this process: the memory that lets ``.virtual.open()`` read again what was opened by name.

A virtual Dataset holds no registry: it is combined, renamed and pickled like any other, and a registry would be lost on
the way. Instead, opening records, for each object that the new Dataset refers to, the registry that granted it. An
object that merely stands in somebody's reference file is not recorded unless the registry which the user passed covers
it.

The record lasts as long as the process and is never pickled: in another process, pass a registry.
"""

from __future__ import annotations

from collections.abc import Iterable

from virtualchunks.errors import NotGrantedError
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.urls import redact

#: The registry that granted an object, by canonical URL; ``None`` for an object that naming it grants.
_GRANTED: dict[str, ObjectStoreRegistry | None] = {}
#: The distinct registries among them.
_REGISTRIES: list[ObjectStoreRegistry] = []


def remember(urls: Iterable[str], registry: ObjectStoreRegistry) -> None:
    """Record which registry grants the objects that were opened.

    Parameters
    ----------
    urls
        Canonical URLs of the objects that a Dataset refers to.
    registry
        The registry they were opened with. Those that it does not cover are not recorded.
    """
    covered = [url for url in urls if url in registry]
    named = set(covered) if _is_by_name(registry) else set(registry.objects)
    _GRANTED.update((url, None if url in named else _shared(registry)) for url in covered)


def recall(urls: Iterable[str]) -> ObjectStoreRegistry:
    """Return a registry that grants these objects, all of them opened before in this process.

    Parameters
    ----------
    urls
        Canonical URLs.

    Raises
    ------
    NotGrantedError
        If one of them was not, or they were opened with registries that differ.
    """
    wanted = list(urls)
    unknown = [url for url in wanted if url not in _GRANTED]
    if unknown:
        folder = unknown[0][: unknown[0].rindex("/") + 1]
        raise NotGrantedError(
            f"{len(unknown)} of the {len(wanted)} objects referred to were not opened by name in this process, for "
            f"example {redact(unknown[0])}: pass registry=ObjectStoreRegistry({{{redact(folder)!r}: store}})",
            url=redact(unknown[0]),
        )
    registries = {id(granted): granted for granted in map(_GRANTED.__getitem__, wanted) if granted is not None}
    if len(registries) > 1:
        raise NotGrantedError(
            f"the objects referred to were opened with {len(registries)} different registries; pass registry= with one "
            "that covers them all"
        )
    base = next(iter(registries.values()), None)
    return (base if base is not None else ObjectStoreRegistry()).grant(
        *(url for url in wanted if _GRANTED[url] is None)
    )


def _is_by_name(registry: ObjectStoreRegistry) -> bool:
    """Return whether a registry grants nothing but what was named: objects, and folders whose parser granted them."""
    named = ObjectStoreRegistry().grant(*registry.objects)
    for prefix in registry.prefixes:
        if prefix.removesuffix("/") not in registry.objects:
            return False
        named.register(prefix)
    return named == registry


def _shared(registry: ObjectStoreRegistry) -> ObjectStoreRegistry:
    """Return the recorded registry that is equal to this one, so that equal ones are kept once."""
    for known in _REGISTRIES:
        if known is registry or known == registry:
            return known
    _REGISTRIES.append(registry)
    return registry

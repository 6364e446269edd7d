"""The command ``virtualchunks``: looking over archives before they are combined, and over references afterwards.

It exits with 0 where all is well, with 1 where something was found, and with 2 where it could not look.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from virtualchunks._version import __version__
from virtualchunks.errors import VirtualChunksError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments
        What stands behind the name of the command; by default that of this process.

    Returns
    -------
    int
        The exit code.
    """
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], Any] = options.run
    try:
        found = run(options)
    except VirtualChunksError as error:
        print(f"virtualchunks {options.command}: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found.to_dict(), indent=2) if options.json else found)
    return 0 if found.ok else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("virtualchunks", description="Virtual chunks: check archives and references.")
    parser.add_argument("--version", action="version", version=f"virtualchunks {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    diagnosing = commands.add_parser("diagnose", help="say whether and how the files of an archive combine")
    diagnosing.add_argument("urls", nargs="+", help="paths, URLs, or a glob of local paths in quotes")
    diagnosing.add_argument("--sample", type=int, help="how many of the files to look at; by default all")
    diagnosing.add_argument("--concat-dim", help="the dimension to join along")
    diagnosing.set_defaults(run=_diagnose)
    verifying = commands.add_parser("verify", help="compare what references lead to with what the files hold")
    verifying.add_argument("url", help="references in a written form, or a file")
    verifying.add_argument("--sample", default="64", help="how many chunks to compare, or 'all'; 64 by default")
    verifying.add_argument("--grant", action="append", default=[], help="a prefix of URLs that may be read; repeatable")
    verifying.set_defaults(run=_verify)
    for command in (diagnosing, verifying):
        command.add_argument("--parser", help="the name of an installed parser; by default it is found")
        command.add_argument("--group", help="path of the group to look at")
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _diagnose(options: argparse.Namespace) -> Any:
    from virtualchunks.diagnosis import diagnose

    urls = options.urls[0] if len(options.urls) == 1 else options.urls
    return diagnose(
        urls, parser=options.parser, sample=options.sample, concat_dim=options.concat_dim, group=options.group
    )


def _verify(options: argparse.Namespace) -> Any:
    from virtualchunks.group import subgroup
    from virtualchunks.registry import ObjectStoreRegistry
    from virtualchunks.urls import as_url
    from virtualchunks.verification import verify
    from virtualchunks.xarray import open_store

    url = as_url(options.url)
    registry = ObjectStoreRegistry(dict.fromkeys(map(as_url, options.grant))).grant(url)
    store = open_store(url, registry, options.parser)
    sample: Any = "all" if options.sample == "all" else int(options.sample)
    return verify(subgroup(store.group, options.group, url), store.registry, sample=sample)


if __name__ == "__main__":
    raise SystemExit(main())

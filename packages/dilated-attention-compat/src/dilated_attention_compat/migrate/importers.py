"""Old names that the files of one run import from one another."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from .vocabulary import PACKAGE

Importers = Mapping[tuple[tuple[str, ...], str], list[Path]]
"""Files by the end of the path of what they import from, and by what they import from it."""

EVERYTHING = "*"
# In a notebook a line begins with the quote of its JSON string.
_FROM = re.compile(r'^[\s"]*from\s+(\.*)([\w.]*)\s+import\s+(\([^)]*\)|(?:\\\n|[^\n#])*)', re.M)


def find_importers(paths: Iterable[Path], names: Collection[str]) -> Importers:
    """Find the files that import one of `names`, or everything, from elsewhere than the package.

    Args:
        paths: The files of the run.
        names: Identifiers of old names.
    """
    found: defaultdict[tuple[tuple[str, ...], str], list[Path]] = defaultdict(list)
    wanted = {*names, EVERYTHING}
    for path in paths:
        try:
            text = path.read_bytes().decode(errors="replace")
        except OSError:
            # The migration of the file will say so.
            continue
        for dots, module, imported in _FROM.findall(text):
            parts = tuple(filter(None, module.split(".")))
            if parts[:1] != (PACKAGE,):
                above = Path(path.resolve(), *[".."] * len(dots)).resolve().parts if dots else ()
                for name in wanted.intersection(re.findall(r"\w+|\*", imported)):
                    found[(*above, *parts), name].append(path)
    return dict(found)


def taken_from(path: Path, importers: Importers) -> dict[str, str]:
    """Return what other files import from a file: name of the importing file by old name."""
    resolved = path.resolve()
    here = (resolved.parent if path.stem == "__init__" else resolved.with_suffix("")).parts
    taken = {}
    for (module, name), files in importers.items():
        others = [file.name for file in files if file != path]
        if others and here[-len(module) :] == module:
            taken[name] = others[0]
    return taken

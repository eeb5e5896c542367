"""Move the fragments of changelog.d/ into the newest section of CHANGELOG.md.

`python tools/changelog.py` moves them; with `--check` it only says what is wrong with them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# In the order in which they stand in a version's section.
KINDS = ("added", "changed", "deprecated", "removed", "fixed", "security")


def fragments(root: Path) -> dict[Path, str]:
    """Each fragment's kind, by path.

    Raises:
        ValueError: a name without a kind, or a text that is not a list.
    """
    found = {}
    for path in sorted(root.glob("changelog.d/*")):
        if path.name == "README.md":
            continue
        _, _, kind = path.name.removesuffix(".md").rpartition(".")
        if path.suffix != ".md" or kind not in KINDS:
            raise ValueError(f"{path.name}: expected words.kind.md, kind one of {', '.join(KINDS)}")
        if not path.read_text(encoding="utf-8").startswith("- "):
            raise ValueError(f"{path.name}: expected list items that begin with '- '")
        found[path] = kind
    return found


def inserted(changelog: str, items: dict[str, str]) -> str:
    """The changelog with list items, by kind, at the end of the kinds of its newest section.

    Raises:
        ValueError: the section has kinds of change that are none.
    """
    head, newest, *older = re.split(r"^(?=## )", changelog, flags=re.M)
    title, *parts = re.split(r"^### ", newest, flags=re.M)
    texts = {part.partition("\n")[0].lower(): part.partition("\n")[2].strip() for part in parts}
    for kind, text in items.items():
        texts[kind] = f"{texts.get(kind, '')}\n{text.strip()}".strip()
    unknown = sorted(texts.keys() - set(KINDS))
    if unknown:
        raise ValueError(f"CHANGELOG.md: unknown kinds of change {unknown}")
    kinds = [f"### {kind.capitalize()}\n\n{texts[kind]}\n" for kind in KINDS if kind in texts]
    section = "\n".join([f"{title.strip()}\n", *kinds])
    return head + "\n".join([section, *older])


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Move or check the fragments; return the exit status."""
    try:
        found = fragments(root)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments == ["--check"]:
        print(f"{len(found)} fragments")
        return 0
    changelog = root / "CHANGELOG.md"
    items: dict[str, str] = {}
    for path, kind in found.items():
        items[kind] = items.get(kind, "") + path.read_text(encoding="utf-8").strip() + "\n"
    changelog.write_text(inserted(changelog.read_text(encoding="utf-8"), items), encoding="utf-8")
    for path in found:
        path.unlink()
    print(f"{len(found)} fragments moved into CHANGELOG.md")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

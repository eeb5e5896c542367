"""Remove the names that a version drops, in a checkout: ``python tools/removal/remove.py 0.3.0``.

The records of the compat package say which names these are. What changes:

- The library and the oracle get the version; the dependency on compat goes. The compat package
  keeps its own: it ends with the versions that its names belong to, and can be installed beside.
- ``_legacy.py`` serves nothing any more; ``removed.tsv`` says what became of each name and path.
- Tests of what is served make room for tests that it is not.

Every edit must find what it replaces; otherwise nothing is written and the text that is missing is
named.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
MAIN = "packages/dilated-attention-pytorch"
SOURCE = f"{MAIN}/src/dilated_attention_pytorch"
COMPAT = "packages/dilated-attention-compat"
PACKAGE = "dilated_attention_pytorch"
TABLE = "removed.tsv"
STILL_THERE = (f"{PACKAGE}.core", f"{PACKAGE}.core.factory")


@dataclass
class Edits:
    """Texts to write and files to delete, below a root.

    Args:
        root: The checkout.
    """

    root: Path
    texts: dict[str, str] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)

    def read(self, path: str) -> str:
        """Return a file's text as edited so far."""
        if path not in self.texts:
            self.texts[path] = (self.root / path).read_text(encoding="utf-8")
        return self.texts[path]

    def replace(self, path: str, old: str, new: str) -> None:
        """Replace a text that a file must have, everywhere in it."""
        text = self.read(path)
        if old not in text:
            raise SystemExit(f"{path} has no {old!r}: the removal has to be brought up to date")
        self.texts[path] = text.replace(old, new)

    def substitute(self, path: str, pattern: str, new: str) -> None:
        """Replace what a pattern finds in a file; it must find something."""
        text, count = re.subn(pattern, new, self.read(path), flags=re.M | re.S)
        if not count:
            raise SystemExit(f"{path} has no {pattern!r}: the removal has to be brought up to date")
        self.texts[path] = text

    def delete(self, pattern: str) -> None:
        """Delete the files that a pattern finds; there must be some."""
        found = sorted(str(path.relative_to(self.root)) for path in self.root.glob(pattern))
        if not found:
            raise SystemExit(f"no file {pattern!r}: the removal has to be brought up to date")
        self.deleted += found

    def carry_out(self) -> None:
        """Write and delete."""
        for path, text in self.texts.items():
            (self.root / path).write_text(text, encoding="utf-8")
        for path in self.deleted:
            (self.root / path).unlink()


def current_version(edits: Edits) -> str:
    """Return the version that the library has."""
    match = re.search(r'^version = "([^"]+)"$', edits.read(f"{MAIN}/pyproject.toml"), re.M)
    assert match is not None
    return match[1]


def bump(edits: Edits, version: str) -> None:
    """Give the library and the oracle a version; the compat package keeps its own."""
    old = current_version(edits)
    for folder, module in ((MAIN, PACKAGE), ("oracle", "dilated_attention_oracle")):
        edits.replace(f"{folder}/pyproject.toml", f'version = "{old}"', f'version = "{version}"')
        init = f"{folder}/src/{module}/__init__.py"
        edits.replace(init, f'__version__ = "{old}"', f'__version__ = "{version}"')
    edits.replace(f"{MAIN}/pyproject.toml", f"oracle=={old}", f"oracle=={version}")
    edits.replace("CHANGELOG.md", f"\n## {old}", f"\n## {version}\n\n## {old}")
    # The one test that holds all three versions together.
    edits.replace(
        "tests/test_house_versions.py",
        'assert stated == [PROJECTS[name]["version"]] == [VERSION]',
        'assert stated == [PROJECTS[name]["version"]]\n'
        '    assert stated == [VERSION] or name == "dilated-attention-compat"',
    )


def removed(version: str) -> dict[str, str]:
    """Return what is gone in a version, and what to say of it, by the path of its import."""
    from dilated_attention_compat import GUIDE, RECORDS, Fate, Kind, LegacyRecord

    def is_gone(record: LegacyRecord) -> bool:
        return bool(record.removed_in) and _order(record.removed_in) <= _order(version)

    def advice(record: LegacyRecord) -> str:
        use = f"use {record.replacement}" if record.replacement else "nothing replaces it"
        kept = "; dilated-attention-compat 0.2.x has it" if record.fate is Fate.COMPAT else ""
        reason = record.why or record.measured
        return f"{record.identifier} is gone since v{record.removed_in}: {reason}; {use}{kept}"

    table: dict[str, str] = {}
    in_modules: dict[str, list[str]] = {}
    for record in RECORDS:
        if record.kind is Kind.ATTENTION_TYPE and is_gone(record):
            table[record.name] = f"{advice(record)}. See {record.guide}"
        if not record.is_imported:
            continue
        said = advice(record) if is_gone(record) else f"import {record.identifier} from {PACKAGE}"
        if record.exported and is_gone(record):
            table[f"{PACKAGE}.{record.identifier}"] = f"{said}. See {record.guide}"
        for module in record.old_modules:
            if module not in STILL_THERE:
                in_modules.setdefault(module, []).append(said)
            elif is_gone(record):
                table[f"{module}.{record.identifier}"] = f"{said}. See {record.guide}"
    for module, sayings in in_modules.items():
        table[module] = f"this path is gone since v{version}. {'. '.join(sayings)}. See {GUIDE}"
    warning = "RingAttentionDeprecationWarning"
    table[f"{PACKAGE}.{warning}"] = f"{warning} is gone since v{version}: nothing is deprecated"
    return dict(sorted(table.items()))


def remove(edits: Edits, version: str) -> None:
    """Take away what the version drops."""
    edits.texts[f"{SOURCE}/_legacy.py"] = (HERE / "legacy_after.py").read_text(encoding="utf-8")
    table = removed(version)
    lines = [f"{path}\t{advice}\n" for path, advice in table.items()]
    edits.texts[f"{SOURCE}/{TABLE}"] = "".join(lines)
    for init in (f"{SOURCE}/__init__.py", f"{SOURCE}/core/__init__.py"):
        edits.substitute(init, r"^if TYPE_CHECKING:\n(?:    [^\n]*\n|\n(?=    ))+\n", "")
        edits.replace(init, "from typing import TYPE_CHECKING, Any", "from typing import Any")
    for path in ("__init__.py", "core/__init__.py", "core/factory.py"):
        served = r'"""[^"\n]*served until 0\.3\.0\."""'
        said = '"""Say what became of names of earlier versions."""'
        edits.substitute(f"{SOURCE}/{path}", served, said)
    edits.substitute(f"{MAIN}/pyproject.toml", r'^    "dilated-attention-compat[^\n]*\n', "")
    edits.substitute(
        "pyproject.toml",
        r'^name = "Only _legacy reaches the compat package"\n(.*?)^# The one exception.*?^\]\n'
        r"unmatched_ignore_imports_alerting[^\n]*\n",
        r'name = "Nothing reaches the compat package"\n\1',
    )
    edits.delete(f"{MAIN}/tests/test_legacy.py")
    edits.delete("tests/test_legacy_*.py")
    test = (HERE / "test_removed_names_after.py").read_text(encoding="utf-8")
    edits.texts[f"{MAIN}/tests/test_removed_names.py"] = test
    edits.substitute(
        "tests/test_house_exports.py", r"^DEPRECATED = .*?^\}\n", "DEPRECATED: set[str] = set()\n"
    )
    names = [path.rpartition(".")[2] for path in table if path.count(".") == 1]
    edits.replace(
        "CHANGELOG.md",
        f"\n## {version}\n",
        f"\n## {version}\n\nRemoved, with advice in the error where one is asked for: "
        f"{', '.join(f'`{name}`' for name in names)}.\n",
    )


def rewrite_guide(edits: Edits) -> None:
    """Let the guide's old code take its classes from the compat package."""
    sys.path.insert(0, str(edits.root / "tests/support"))
    import migration_guide

    guide = migration_guide.GUIDE
    edits.texts[guide] = migration_guide.render(edits.read(guide), served=False)


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def main() -> int:
    """Remove what a version drops; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("version", help="the version to become, such as 0.3.0")
    parser.add_argument("--root", type=Path, default=HERE.parents[1], help="the checkout")
    parser.add_argument("--only-bump", action="store_true", help="change the version alone")
    options = parser.parse_args()
    sys.path.insert(0, str(options.root / COMPAT / "src"))
    edits = Edits(options.root)
    bump(edits, options.version)
    if not options.only_bump:
        remove(edits, options.version)
        rewrite_guide(edits)
    edits.carry_out()
    print(
        "\n".join((*edits.texts, f"{len(edits.texts)} files written, {len(edits.deleted)} deleted"))
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

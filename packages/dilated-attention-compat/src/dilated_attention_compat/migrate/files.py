"""The files to migrate: finding them, reading them, writing them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .notebook import migrate_notebook
from .source import Migration, migrate_source
from .vocabulary import Vocabulary

_SUFFIXES = (".py", ".pyi", ".ipynb")
_WORTH_PROCESSES = 100
_SKIPPED = frozenset(("__pycache__", "node_modules", "site-packages"))


@dataclass(frozen=True)
class FileResult:
    """What became of one file.

    Attributes:
        path: The file.
        before: Its content.
        migration: What becomes of it.
        error: Why it could not be migrated; empty where it could.
    """

    path: Path
    before: bytes
    migration: Migration
    error: str = ""

    @property
    def changes(self) -> bool:
        """Whether the file's content changes."""
        return self.migration.source != self.before


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield Python files and notebooks, each once, in order.

    In folders, hidden ones, virtual environments and installed packages are passed over; a path
    that is named itself is always taken.

    Raises:
        FileNotFoundError: A path does not exist.
    """
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        for found in _below(path) if path.is_dir() else [path]:
            if found.resolve() not in seen:
                seen.add(found.resolve())
                yield found


def migrate_file(path: Path, vocabulary: Vocabulary, *, star: bool) -> FileResult:
    """Migrate one file, without writing it."""
    before = path.read_bytes()
    try:
        if path.suffix == ".ipynb":
            migration = migrate_notebook(before, vocabulary, star=star)
        else:
            is_package = path.name in ("__init__.py", "__init__.pyi")
            migration = migrate_source(before, vocabulary, star=star, is_package=is_package)
    except ValueError as error:
        return FileResult(path, before, Migration(before), str(error))
    return FileResult(path, before, migration)


def migrate_files(paths: Sequence[Path], vocabulary: Vocabulary, *, star: bool) -> list[FileResult]:
    """Migrate files, without writing them; many of them on all cores."""
    migrate = partial(migrate_file, vocabulary=vocabulary, star=star)
    if len(paths) < _WORTH_PROCESSES:
        return list(map(migrate, paths))
    with ProcessPoolExecutor() as pool:
        return list(pool.map(migrate, paths, chunksize=16))


def _below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            left_out = path.name in _SKIPPED or path.name.startswith(".")
            if not (left_out or path.is_symlink() or (path / "pyvenv.cfg").exists()):
                yield from _below(path)
        elif path.suffix in _SUFFIXES:
            yield path

"""The files to migrate: finding them, reading them, writing them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .importers import Importers, find_importers, taken_from
from .notebook import migrate_notebook
from .source import Migration, migrate_source
from .vocabulary import Vocabulary

_SUFFIXES = (".py", ".pyi", ".ipynb")
_WORTH_PROCESSES = 100
NOBODY: Importers = {}
_SKIPPED = frozenset(("__pycache__", "node_modules", "site-packages"))


@dataclass(frozen=True)
class FileResult:
    """What became of one file.

    Attributes:
        path: The file.
        before: Its content.
        migration: What becomes of it.
        error: Why it could not be read, migrated or written; empty where it could.
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

    In folders, hidden ones, virtual environments, installed packages and links to nowhere are
    passed over; a path that is named itself is always taken.

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


def migrate_file(
    path: Path, vocabulary: Vocabulary, *, star: bool, importers: Importers = NOBODY
) -> FileResult:
    """Migrate one file, without writing it.

    Args:
        path: The file.
        vocabulary: The old names to look for.
        star: Whether names that nothing else defines come from a star import.
        importers: Which files import which old names from others.
    """
    before = b""
    try:
        before = path.read_bytes()
        if path.suffix == ".ipynb":
            migration = migrate_notebook(before, vocabulary, star=star)
        else:
            is_package = path.name in ("__init__.py", "__init__.pyi")
            migration = migrate_source(
                before,
                vocabulary,
                star=star,
                is_package=is_package,
                taken=taken_from(path, importers),
            )
    except OSError as error:
        return _failed(path, before, f"not read: {error}")
    except RecursionError:
        return _failed(path, before, "left as it is: nested too deeply to be followed")
    except ValueError as error:
        return _failed(path, before, str(error))
    return FileResult(path, before, migration)


def written(result: FileResult) -> FileResult:
    """Write what became of a file, if it changed; return the result, an error where it failed."""
    if not result.changes:
        return result
    try:
        result.path.write_bytes(result.migration.source)
    except OSError as error:
        return _failed(result.path, result.before, f"not written: {error}")
    return result


def migrate_files(paths: Sequence[Path], vocabulary: Vocabulary, *, star: bool) -> list[FileResult]:
    """Migrate files, without writing them; many of them on all cores."""
    importers = find_importers(paths, vocabulary.identifiers)
    migrate = partial(migrate_file, vocabulary=vocabulary, star=star, importers=importers)
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
        elif path.suffix in _SUFFIXES and path.is_file():
            yield path


def _failed(path: Path, before: bytes, error: str) -> FileResult:
    return FileResult(path, before, Migration(before), error)

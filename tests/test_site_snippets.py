"""What is on the pages besides blocks that run: examples of docstrings, commands, outlines."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for pattern in ("*.md", "oracle/*.md", "packages/*/*.md", "docs/**/*.md", "changelog.d/*.md")
    for page in ROOT.glob(pattern)
)
SOURCES = [ROOT / "oracle/src", *sorted(ROOT.glob("packages/*/src"))]
EXAMPLES = sorted(
    ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
    for source in SOURCES
    for path in source.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
FENCE = re.compile(r"^ *```(?P<kind>\w*)[^\n]*\n(?P<code>.*?)^ *```$", re.M | re.S)
# Not run, because they stand for the reader's own program.
OUTLINES = {"docs/guides/many-gpus.md": 2, "docs/guides/torchscale-gigapath.md": 1}
NOT_CODE = {"text", "toml", ""}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fences(page: Path) -> list[tuple[str, str]]:
    return [(m["kind"], m["code"]) for m in FENCE.finditer(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("module", EXAMPLES)
def test_the_examples_of_docstrings_run(module: str) -> None:
    """The reference pages show them."""
    found = doctest.testmod(
        importlib.import_module(module), optionflags=doctest.ELLIPSIS, report=True
    )
    assert found.attempted
    assert found.failed == 0


def test_examples_are_found() -> None:
    assert "dilated_attention_pytorch.functional.single" in EXAMPLES


def test_code_that_is_not_run_is_known() -> None:
    """`python` is run by test_house_pages, `bash` is looked at below."""
    kinds = {name(page): Counter(kind for kind, _ in fences(page)) for page in PAGES}
    assert {page: count["py"] for page, count in kinds.items() if count["py"]} == OUTLINES
    assert set().union(*kinds.values()) <= {"python", "py", "bash"} | NOT_CODE
    run = {page for page, count in kinds.items() if count["python"]}
    assert not {page for page in run if "/" not in page} - {"README.md", "CONTRIBUTING.md"}


def literals() -> str:
    """The literal parts of every string of the packages, f-strings cut at their expressions."""
    trees = (
        ast.parse(path.read_text(encoding="utf-8"))
        for source in SOURCES
        for path in source.rglob("*.py")
    )
    return "\0".join(
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def is_said(message: str, literal: str) -> bool:
    """Whether 3/5 of each piece of the message stand in one literal; names are put in by code."""
    for piece in (piece.strip() for piece in message.split("…")):
        size = -(-3 * len(piece) // 5)
        if not any(piece[i : i + size] in literal for i in range(len(piece) - size + 1)):
            return False
    return True


def test_every_message_of_the_troubleshooting_page_is_one_of_the_packages() -> None:
    page = (ROOT / "docs/guides/troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^### `(.+)`$", page, re.M)
    assert len(messages) > 15
    literal = literals()
    classes = {"RankDisagreementError", "PeerError", "RingAttentionDeprecationWarning"}
    assert [x for x in messages if x not in classes and not is_said(x, literal)] == []
    assert classes <= set(messages)
    assert not is_said("query must be five-dimensional (batch, length)", literal)


def commands() -> list[tuple[str, list[str]]]:
    """(page, words) of every command of the pages' shell blocks."""
    found = []
    for page in PAGES:
        for kind, code in fences(page):
            if kind == "bash":
                for line in code.replace("\\\n", " ").splitlines():
                    for part in re.split(r"&&|\|", line.split(" # ")[0]):
                        words = shlex.split(part, comments=True)
                        # PIP_EXTRA_INDEX_URL=… python …
                        while words and re.match(r"[A-Z_]+=", words[0]):
                            words.pop(0)
                        if words:
                            found.append((name(page), words))
    return found


def sessions() -> set[str]:
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {f.name for f in functions if any("session" in ast.unparse(d) for d in f.decorator_list)}


def module_exists(module: str) -> bool:
    path = module.replace(".", "/")
    folders = [ROOT, *SOURCES]
    return any((at / f"{path}.py").is_file() or (at / path).is_dir() for at in folders)


def fault(words: list[str]) -> str | None:
    """What a command of the pages names that this repository does not have."""
    missing = [
        word
        for word in words
        if re.fullmatch(r"[\w./-]+\.py", word) and "/" in word and not (ROOT / word).exists()
    ]
    if missing:
        return f"no file {missing}"
    if "nox" in words and "-s" in words:
        asked = words[words.index("-s") + 1 :]
        asked = asked[: asked.index("--")] if "--" in asked else asked
        return f"no session {unknown}" if (unknown := set(asked) - sessions()) else None
    if "-m" in words and words[0].startswith("python"):
        module = words[words.index("-m") + 1]
        ours = module.startswith(("benchmarks", "dilated_attention"))
        return f"no module {module}" if ours and not module_exists(module) else None
    if words[0] == "dilated-attention":
        return program_fault(words[1:])
    return None


def program_fault(words: list[str]) -> str | None:
    typer = pytest.importorskip("typer", reason="the extra [cli] installs typer")
    from dilated_attention_pytorch.cli.app import app

    known = typer.main.get_command(app).commands
    if words[0] not in known:
        return f"no command {words[0]}"
    options = {flag for one in known[words[0]].params for flag in (*one.opts, *one.secondary_opts)}
    unknown = [word for word in words[1:] if word.startswith("--") and word not in options]
    return f"no option {unknown}" if unknown else None


@pytest.mark.parametrize(
    ("page", "words"), commands(), ids=lambda x: x if isinstance(x, str) else x[0]
)
def test_what_a_command_names_exists(page: str, words: list[str]) -> None:
    assert fault(words) is None, f"{page}: {shlex.join(words)}"


@pytest.mark.parametrize(
    "command",
    [
        "dilated-attention dance",
        "dilated-attention plan --n 4 --colour red",
        "python -m nox -s tests paint",
        "nox -s paint -- serve",
        "python -m benchmarks.paint x.json",
        "python tests/support/paint.py",
    ],
)
def test_a_command_that_names_nothing_is_found(command: str) -> None:
    assert fault(shlex.split(command)) is not None

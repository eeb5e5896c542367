"""Every figure of the pages is what its code draws today."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

matplotlib = pytest.importorskip("matplotlib", reason="the extra [cli] installs matplotlib")
page, plot = (pytest.importorskip(f"benchmarks.{name}") for name in ("page", "plot"))

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(ROOT.glob("docs/figures/*.py"))
ASSETS = ROOT / "docs/assets"
# Drawn by `python -m benchmarks.page`, from what was measured on GPUs.
MEASURED = {f"one_gpu_{name}" for name in plot.FIGURES}


def draw(script: Path, folder: Path) -> None:
    """Run the script's `main` for another folder."""
    spec = importlib.util.spec_from_file_location(f"figure_{script.stem}", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(folder)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_figure_is_what_its_code_draws(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "svg")
    matplotlib.use("svg")
    draw(script, tmp_path)
    drawn = sorted(tmp_path.iterdir())
    assert [path.stem for path in drawn] == [script.stem]
    committed = (ASSETS / drawn[0].name).read_text(encoding="utf-8")
    # Not assert ==: pytest's difference of two large files takes minutes.
    same = drawn[0].read_text(encoding="utf-8") == committed
    assert same, f"{drawn[0].name} is not what {script.name} draws: run nox -s figures"


def test_the_measured_figures_are_what_their_code_draws(tmp_path: Path) -> None:
    drawn = plot.draw(page.load("one_gpu.json"), page.digest(), tmp_path)
    assert {path.stem for path in drawn} == MEASURED
    for path in drawn:
        committed = (ASSETS / path.name).read_text(encoding="utf-8")
        same = path.read_text(encoding="utf-8") == committed
        assert same, f"{path.name} is not what benchmarks/plot.py draws: run nox -s figures"


def test_every_picture_has_code_and_is_on_a_page() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in ROOT.glob("docs/**/*.md"))
    drawn = {script.stem for script in SCRIPTS} | MEASURED
    for picture in ASSETS.glob("*.svg"):
        assert picture.stem in drawn, f"nothing draws {picture.name}"
        assert f"assets/{picture.name})" in pages, f"{picture.name} is on no page"

"""The built site in a real browser: `nox -s site_browser` builds it and runs this file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("playwright", reason="nox -s site_browser runs these in a browser")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from support.site_browser import DESKTOP, PHONE, Visit, chromium, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[1]
SITE = Path(os.environ.get("DILATED_ATTENTION_SITE", ROOT / "site"))
SHOTS = Path(os.environ.get("DILATED_ATTENTION_SCREENSHOTS", ROOT / "build" / "screenshots"))
VECTORS = json.loads((ROOT / "docs/explorer/vectors.json").read_text(encoding="utf-8"))
PATHS = sorted(
    "" if folder == Path() else f"{folder.as_posix()}/"
    for folder in (page.parent.relative_to(SITE) for page in SITE.rglob("index.html"))
)
SHOWN = ("", "start/", "theory/operator/", "theory/ring/", "reference/functions/", "performance/")
SCHEMES = ("light", "dark")
ONLY_VIOLATIONS = {"resultTypes": ["violations"]}


@pytest.fixture(scope="module")
def home() -> Iterator[str]:
    with served(SITE) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(params=[(s, c) for s in (DESKTOP, PHONE) for c in SCHEMES], ids=str)
def visit(request: pytest.FixtureRequest, browser: Browser, home: str) -> Iterator[Visit]:
    size, scheme = request.param
    opened = Visit(browser, home, size, scheme)
    yield opened
    opened.page.close()


@pytest.fixture
def desktop(browser: Browser, home: str) -> Iterator[Visit]:
    opened = Visit(browser, home, DESKTOP, "light")
    yield opened
    opened.page.close()


def scheme_of(page: Page) -> str:
    return page.locator("body").get_attribute("data-md-color-scheme") or ""


def test_the_site_is_built() -> None:
    assert len(PATHS) > 20, f"no site at {SITE}: run nox -s docs"
    assert set(SHOWN) <= set(PATHS)


def test_every_page_loads_without_errors_or_requests_elsewhere(visit: Visit) -> None:
    size = visit.page.viewport_size
    assert size is not None
    dark = visit.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    for path in PATHS:
        page = visit.open(path)
        assert scheme_of(page) == ("slate" if dark else "default")
        spills = page.evaluate("document.documentElement.scrollWidth")
        assert spills <= size["width"], f"/{path} is {spills} px wide, the window {size['width']}"
    assert visit.faults == []


def test_pages_are_accessible(browser: Browser, home: str) -> None:
    found = []
    for scheme in SCHEMES:
        opened = Visit(browser, home, DESKTOP, scheme)
        for path in PATHS:
            results = Axe().run(opened.open(path), options=ONLY_VIOLATIONS).response
            found += [
                f"{scheme} /{path}: {violation['impact']}, {violation['id']}: {node['html'][:120]}"
                for violation in results["violations"]
                if violation["impact"] in ("serious", "critical")
                for node in violation["nodes"]
            ]
        opened.page.close()
    assert found == [], "\n".join(found)


def test_screenshots(visit: Visit) -> None:
    """Pictures of six pages and of the explorer, to look at."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    size = visit.page.viewport_size
    assert size is not None
    for path in (*SHOWN, "explorer/"):
        page = visit.open(path)
        name = path.strip("/").replace("/", "-") or "home"
        file = SHOTS / f"{name}-{size['width']}-{scheme_of(page)}.png"
        page.screenshot(path=file, full_page=path == "explorer/")
        assert file.stat().st_size > 10_000, f"{file} shows next to nothing"


def test_navigation_on_a_desktop(desktop: Visit) -> None:
    page = desktop.open("")
    page.locator(".md-sidebar--primary").get_by_role("link", name="The merge algebra").click()
    page.wait_for_url("**/theory/merge/")
    assert page.locator("h1").inner_text().startswith("The merge algebra")
    assert desktop.faults == []


def test_navigation_on_a_phone(browser: Browser, home: str) -> None:
    phone = Visit(browser, home, PHONE, "light")
    page = phone.open("")
    page.locator("label.md-header__button[for=__drawer]").click()
    page.locator(".md-sidebar--primary").get_by_role("link", name="Numerics").click()
    page.wait_for_url("**/numerics/")
    assert phone.faults == []
    page.close()


def test_search_finds_a_page(desktop: Visit) -> None:
    page = desktop.open("")
    page.locator(".md-search__input").click()
    page.locator(".md-search__input").press_sequentially("merge_partials")
    results = page.locator(".md-search-result__link")
    results.first.wait_for()
    pages = {(link.get_attribute("href") or "").split("?")[0] for link in results.all()}
    assert any("reference/functions/" in target for target in pages), pages
    results.first.click()
    page.wait_for_load_state("networkidle")
    assert page.url != desktop.home
    assert desktop.faults == []


def test_the_scheme_can_be_switched(desktop: Visit) -> None:
    page = desktop.open("explorer/")
    before = page.locator("[data-show=mask]").evaluate("canvas => canvas.toDataURL()")
    page.locator("label[title=Dark]").click()
    page.wait_for_function("document.body.dataset.mdColorScheme === 'slate'")
    after = page.locator("[data-show=mask]").evaluate("canvas => canvas.toDataURL()")
    same = before == after  # pytest would print both pictures
    assert not same, "the explorer's picture kept the colours of the other scheme"


def ask(page: Page, question: dict[str, Any]) -> None:
    """Fill in the explorer's form as a reader would."""
    for name in ("n", "heads", "kvHeads", "headDim", "ringSize", "head"):
        page.locator(f"#explorer [name={name}]").fill(str(question[name]))
    branches = ", ".join(f"{w}:{r}" for w, r in question["branches"])
    page.locator("#explorer [name=branches]").fill(branches)
    for name in ("rule", "order", "itemsize"):
        page.locator(f"#explorer [name={name}]").select_option(str(question[name]))
    page.locator("#explorer [name=causal]").set_checked(question["causal"])


def numbers(page: Page, table: str) -> list[list[int]]:
    """The whole numbers of a table's body, by row."""
    script = "body => [...body.rows].map(row => [...row.children].map(cell => cell.textContent))"
    rows = page.locator(f"[data-show={table}]").evaluate(script)
    return [[int(c) for cell in row if (c := cell.replace(",", "")).isdigit()] for row in rows]


def test_the_explorer_says_what_python_says(desktop: Visit) -> None:
    page = desktop.open("explorer/")
    for vector in VECTORS:
        ask(page, vector["question"])
        assert page.locator("#explorer").get_attribute("data-state") == "ready", vector["question"]
        answer = vector["answer"]
        totals = [row[0] for row in numbers(page, "totals")[:3]]
        assert totals == [int(answer[k]) for k in ("pairs", "forward_flops", "backward_flops")]
        received = [sum(row) for row in answer["row_heads"]]
        assert numbers(page, "ranks") == [
            [rank, rows, received[rank], forward, backward, memory]
            for rank, (rows, forward, backward, memory) in enumerate(answer["ranks"])
        ], vector["question"]
    assert desktop.faults == []


def test_the_explorer_draws_the_mask_that_python_has(desktop: Visit) -> None:
    page = desktop.open("explorer/")
    script = """async ([question]) => {
        const formulas = await import('./formulas.mjs');
        return formulas.answer(question).mask;
    }"""
    for vector in VECTORS:
        assert page.evaluate(script, [vector["question"]]) == vector["answer"]["mask"]
    ask(page, VECTORS[0]["question"])
    label = page.locator("[data-show=mask]").get_attribute("aria-label") or ""
    first = VECTORS[0]["question"]
    assert f"rows and keys 0 to {first['n'] - 1}" in label


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n", "0", "n must be a whole number from 1"),
        ("n", "", "n must be a whole number"),
        ("branches", "64", "A branch is w:r"),
        ("kvHeads", "3", "heads must be a multiple"),
        ("head", "first", "Head shown must be a whole number from 0"),
    ],
)
def test_the_explorer_refuses_in_words(desktop: Visit, name: str, value: str, message: str) -> None:
    page = desktop.open("explorer/")
    page.locator(f"#explorer [name={name}]").fill(value)
    assert message in page.locator("#explorer [data-show=error]").inner_text()
    assert page.locator("#explorer").get_attribute("data-state") == "refused"
    assert desktop.faults == []


def test_what_is_shown_follows_a_smaller_question(desktop: Visit) -> None:
    page = desktop.open("explorer/")
    page.locator("#explorer [name=rank]").fill("3")
    page.locator("#explorer [name=ringSize]").fill("2")
    assert page.locator("#explorer").get_attribute("data-state") == "ready"
    assert page.locator("#explorer [name=rank]").input_value() == "1"
    assert "Rank 1 holds 48 rows" in page.locator("[data-show=needs]").inner_text()


@pytest.mark.parametrize("preset", ["small", "paper", "gigapath"])
def test_the_explorer_answers_its_presets(desktop: Visit, preset: str) -> None:
    page = desktop.open("explorer/")
    page.locator("#explorer [name=preset]").select_option(preset)
    assert page.locator("#explorer").get_attribute("data-state") == "ready"
    assert desktop.faults == []

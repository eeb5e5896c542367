"""What the check of a built site's links finds."""

from __future__ import annotations

from pathlib import Path

from support.site_links import broken_links


def test_dead_links_and_anchors_are_found(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "index.html").write_text(
        '<a href="a/#there">1</a><a href="a/#nowhere">2</a><a href="b/">3</a><a href="#top">4</a>'
        '<a href="https://elsewhere.example/">5</a><img src="c.svg"><p id="top">'
    )
    (tmp_path / "a/index.html").write_text('<h2 id="there"></h2><a href="..">up</a>')
    assert broken_links(tmp_path) == [
        "index.html -> a/#nowhere",
        "index.html -> b/",
        "index.html -> c.svg",
    ]

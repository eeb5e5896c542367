"""Find links of a built site that lead nowhere: to no file, or to no anchor of one.

Run as a script with the site's folder it prints each such link and fails if there is one.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := values.get(name))}
        name = {"a": "href", "link": "href", "img": "src", "script": "src"}.get(tag)
        if name and values.get(name) is not None:
            self.targets.append(values[name] or "")


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def broken_links(site: Path) -> list[str]:
    """Return 'page -> target' for each link inside the site whose file or anchor is missing.

    404.html is left out: a server shows it at any address, so it has links from the root.
    """
    pages = {path: _read(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    broken = []
    for path, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            if file.is_dir():
                file /= "index.html"
            known = pages.get(site / file.relative_to(site.resolve())) if file.is_file() else None
            fragment = unquote(parts.fragment)
            # Material's skip link and code lines are anchors; "#" alone is the top.
            if not file.is_file() or (fragment and known and fragment not in known.anchors):
                broken.append(f"{path.relative_to(site)} -> {target}")
    return broken


def main(site: str) -> int:
    """Print the broken links of the site in folder ``site``; return the exit status."""
    found = broken_links(Path(site))
    print("\n".join(found) or f"{site}: every link leads somewhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

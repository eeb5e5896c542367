"""Find what a built site would fetch from other hosts.

Run as a script with the site's folder it prints each such request and fails if there is one.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

FETCHING = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "object": ("data",),
    "embed": ("src",),
    "link": ("href",),
}
# A link of these kinds names a page; browsers fetch nothing for it.
NAMING_LINKS = {"canonical", "next", "prev", "alternate", "license"}
CSS_URL = re.compile(r"""(?:url\(\s*['"]?|@import\s+['"])((?:https?:)?//[^'")\s]+)""")


class _Requests(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and NAMING_LINKS & set((values.get("rel") or "").split()):
            return
        for name in FETCHING.get(tag, ()):
            value = values.get(name) or ""
            if value.startswith(("http:", "https:", "//")):
                self.found.append(f"<{tag} {name}={value!r}>")


def external_requests(site: Path) -> list[str]:
    """Return 'file: request' for everything that a page or style sheet takes from another host."""
    found = []
    for page in sorted(site.rglob("*.html")):
        parser = _Requests()
        parser.feed(page.read_text(encoding="utf-8"))
        found += [f"{page.relative_to(site)}: {request}" for request in parser.found]
    for sheet in sorted(site.rglob("*.css")):
        urls = CSS_URL.findall(sheet.read_text(encoding="utf-8"))
        found += [f"{sheet.relative_to(site)}: {url}" for url in urls]
    return found


def main(site: str) -> int:
    """Print the requests of the site in folder ``site``; return the exit status."""
    found = external_requests(Path(site))
    print("\n".join(found) or f"{site}: no request to another host")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""What programs write into a page: the text between `<!-- name -->` and `<!-- /name -->`."""

from __future__ import annotations

from collections.abc import Mapping


def fill(page: str, parts: Mapping[str, str]) -> str:
    """The page with its parts made anew, by name.

    Raises:
        ValueError: a marker is missing.
    """
    for name, text in parts.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if page.count(start) != 1 or page.count(end) != 1:
            raise ValueError(f"the page needs one {start} and, after it, one {end}")
        before, rest = page.split(start)
        page = f"{before}{start}\n\n{text}\n\n{end}{rest.split(end)[1]}"
    return page

"""A built site behind a local server, opened in Chromium, with everything amiss written down."""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response

PHONE, DESKTOP = (390, 844), (1280, 900)
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """Return the path of the installed Chromium."""
    found = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if found is None:
        raise FileNotFoundError(f"no browser: install one of {', '.join(PROGRAMS)}")
    return found


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a request that fails is told by the browser."""


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The address of ``site`` behind a server of this process."""
    handler = functools.partial(_QuietHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class Visit:
    """A page of the site in a window of its own; `faults` lists what went wrong so far."""

    def __init__(self, browser: Browser, home: str, size: tuple[int, int], scheme: str) -> None:
        width, height = size
        self.home = home
        self.faults: list[str] = []
        self.page: Page = browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
        )
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.faults.append(f"script error: {error}"))
        self.page.on("request", self._request)
        self.page.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console {message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.home, "data:", "blob:")):
            self.faults.append(f"request to {request.url}")

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self.faults.append(f"status {response.status} for {response.url}")

    def open(self, path: str) -> Page:
        """Load a page and wait until nothing is being loaded."""
        self.page.goto(self.home + path, wait_until="networkidle")
        return self.page

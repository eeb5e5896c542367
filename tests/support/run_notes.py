"""Lines that tests want said at the end of a run, under a heading."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest


class RunNotes:
    """Pytest plugin: headings and lines, those of pytest-xdist's workers included."""

    def __init__(self) -> None:
        self.lines: defaultdict[str, list[str]] = defaultdict(list)

    def note(self, heading: str, line: str) -> None:
        """Say `line` under `heading`; a line is said once."""
        if line not in self.lines[heading]:
            self.lines[heading].append(line)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["run_notes"] = dict(self.lines)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        for heading, lines in getattr(node, "workeroutput", {}).get("run_notes", {}).items():
            for line in lines:
                self.note(heading, line)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for heading, lines in sorted(self.lines.items()):
            terminalreporter.section(heading)
            for line in sorted(lines):
                terminalreporter.write_line(line)


NOTES = RunNotes()

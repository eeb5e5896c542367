"""The command `dilated-attention`. Needs the extra `cli`; nothing else imports this room."""

from __future__ import annotations

import sys
from importlib.util import find_spec

_EXTRA = ("typer", "rich", "matplotlib", "dilated_attention_oracle")


def main() -> int:
    """Run the command line.

    Returns:
        2 where the extra is not installed; otherwise the command itself ends the program, with 0
        on success, 1 where a check failed, 2 for wrong usage, 130 after Ctrl-C.
    """
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        print(
            f"dilated-attention needs {', '.join(missing)}: from a clone of the repository run\n"
            "  python -m pip install ./oracle ./packages/dilated-attention-compat "
            '"./packages/dilated-attention-pytorch[cli]"',
            file=sys.stderr,
        )
        return 2
    from .app import app

    app(prog_name="dilated-attention")
    return 0

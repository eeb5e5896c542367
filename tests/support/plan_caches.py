"""Forget cached plans, so that a fault planted in the schedule is met and not left behind."""

from __future__ import annotations

import sys

PACKAGE = "dilated_attention_pytorch"


def clear_plan_caches() -> None:
    """Empty every functools cache of the package's loaded modules."""
    for name, module in list(sys.modules.items()):
        if name == PACKAGE or name.startswith(f"{PACKAGE}."):
            for value in list(vars(module).values()):
                clear = getattr(value, "cache_clear", None)
                if callable(clear):
                    clear()

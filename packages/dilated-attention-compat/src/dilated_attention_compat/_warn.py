"""Warnings that point at the caller's own line."""

from __future__ import annotations

import sys
import warnings

from ._record import LegacyRecord

_TRANSPARENT = frozenset({"dilated_attention_pytorch", "dilated_attention_compat", "torch"})


class RingAttentionDeprecationWarning(DeprecationWarning):
    """A historical class or function is used; it will be removed.

    To make it an error in a test suite:
    `pytest -W error::dilated_attention_pytorch.RingAttentionDeprecationWarning`.
    """


def _caller_stacklevel() -> int:
    """Return the `stacklevel`, seen from `warn_at_caller`, of the nearest frame of user code.

    Frames are told apart by the package of the module that runs them: `skip_file_prefixes` of
    `warnings.warn` does this by path, but from Python 3.12 only.
    """
    frame = sys._getframe(1)
    level = 1
    while frame.f_globals.get("__name__", "").partition(".")[0] in _TRANSPARENT:
        if frame.f_back is None:
            break
        frame = frame.f_back
        level += 1
    return level


def warn_at_caller(message: str, category: type[Warning]) -> None:
    """Warn at the first line outside of these packages and of torch.

    Args:
        message: What to say.
        category: The warning's class.
    """
    warnings.warn(message, category, stacklevel=_caller_stacklevel())


def warn_deprecated(record: LegacyRecord) -> None:
    """Say that the record's name is deprecated, at the line that uses it.

    Args:
        record: Record of the name in use.
    """
    warn_at_caller(record.deprecation_message, RingAttentionDeprecationWarning)


def warn_wrong_numbers(record: LegacyRecord) -> None:
    """Say, visibly by default, that the result about to be returned is wrong.

    Args:
        record: Record of the class that computes it.
    """
    warn_at_caller(record.numbers_message, RuntimeWarning)

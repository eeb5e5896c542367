"""Errors that callers may want to tell apart from a plain ValueError or RuntimeError."""

from __future__ import annotations


class RankDisagreementError(ValueError):
    """Ranks of one ring made different calls; raised on every rank, naming ranks and field."""


class PeerError(RuntimeError):
    """Another rank raised, died or did not answer within the group's timeout."""


class BackendError(ValueError):
    """A backend that was named does not exist or cannot serve the call; the message says why."""

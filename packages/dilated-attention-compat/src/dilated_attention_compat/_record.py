"""What is known about one name of the historical package."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

GUIDE = "docs/guides/ring-attention-migration.md"
"""Address of the migration guide, from the root of the repository."""


class Kind(StrEnum):
    """What sort of thing an old name was."""

    CLASS = "class"
    FUNCTION = "function"
    ARGUMENT = "argument"
    DEFAULT = "default"
    MODULE = "module"


class Fate(StrEnum):
    """What became of an old name."""

    KEPT = "kept"
    CORRECTED = "corrected"
    COMPAT = "compat"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyRecord:
    """One old name: where it was, why it goes, what replaces it.

    Everything said about a deprecated name (the runtime warnings, the import hooks, the guide's
    sections, the test that turns red at the removal version) is derived from its record.

    Attributes:
        name: The name users import.
        kind: What sort of thing it is.
        fate: What became of it.
        old_modules: Modules it could be imported from, besides the package itself.
        target: `module:attribute` that serves it.
        since: Version that deprecated it.
        removed_in: Version that drops it.
        replacement: What to use instead, as the warning says it.
        promised_reason: The reason the historical warning gave, kept word for word.
        measured: What measurement showed, as one clause without its full stop.
        result_change: How numbers change when the replacement is used.
        relative_error: |wrong - right| / |right|, in the Euclidean norm over all outputs, full and
            causal. Right is the same pattern and head groups over tokens. Measured with n = 64,
            segment lengths 16, 32, 64 and dilation rates 1, 2, 4 on standard normal inputs (and
            initial weights), by the tests of this package.
        before: A snippet of old code.
        after: The same with the replacement.
        codemod: How an automatic rewrite handles the name, or why none can.
        guide_anchor: Anchor of the name's section in the guide.
    """

    name: str
    kind: Kind
    fate: Fate
    old_modules: tuple[str, ...]
    target: str
    since: str
    removed_in: str
    replacement: str
    promised_reason: str
    measured: str
    result_change: str
    relative_error: tuple[float, float]
    before: str
    after: str
    codemod: str
    guide_anchor: str

    @property
    def guide(self) -> str:
        """Address of the name's section in the guide."""
        return f"{GUIDE}#{self.guide_anchor}"

    @property
    def deprecation_message(self) -> str:
        """The text users were promised, then what was measured and where to read on."""
        return (
            f"{self.name} is deprecated due to incorrect implementation. {self.promised_reason} "
            f"Please use {self.replacement} instead. "
            f"This implementation will be removed in v{self.removed_in}. "
            f"Measured: {self.measured}; see {self.guide}."
        )

    @property
    def numbers_message(self) -> str:
        """What the first forward says about its own result."""
        full, causal = self.relative_error
        return (
            f"{self.name} does not attend over tokens: the softmax runs over the heads at a single "
            f"position. Its error was measured at {full:.2f} times the norm of the right result "
            f"({causal:.2f} times with is_causal). See {self.guide}."
        )

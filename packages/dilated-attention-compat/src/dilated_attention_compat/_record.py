"""What is known about one name of the historical package."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from ._rewrite import Rewrite

GUIDE = "docs/guides/ring-attention-migration.md"
"""Address of the migration guide, from the root of the repository."""


class Kind(StrEnum):
    """What sort of thing an old name was."""

    CLASS = "class"
    FUNCTION = "function"
    CONSTANT = "constant"
    ARGUMENT = "argument"
    DEFAULT = "default"
    ATTENTION_TYPE = "attention type"
    MODULE = "module"


class Fate(StrEnum):
    """What became of an old name.

    `kept`: it is there and gives the numbers it gave. `corrected`: it is there and gives right
    numbers in place of wrong ones, or works where it raised. `compat`: deprecated, served with its
    old behaviour until the version of `removed_in`. `gone`: not served any more.
    """

    KEPT = "kept"
    CORRECTED = "corrected"
    COMPAT = "compat"
    GONE = "gone"


class Ran(StrEnum):
    """How far a historical object got before it raised, whatever its arguments were."""

    FORWARD = "forward"
    CONSTRUCTOR = "constructor"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyRecord:
    """One old name: where it was, what became of it, what replaces it.

    Everything said about an old name (the runtime warnings, the errors for what is gone, the import
    hooks, the guide's tables, the automatic migration, the test that turns red at the removal
    version) is derived from its record.

    Attributes:
        name: Unique. For a class, function or constant the identifier that users import, with its
            module before it (`ring_dilated_attention_unfold.UnfoldRingDilatedAttention`) where
            another record has the plain identifier. For an argument `Class(argument)` or
            `Class.method(argument)`, for a default the same with `=value`; for an attention type
            `create_dilated_attention('block_sparse_ring')`; for a module its last name.
        kind: What sort of thing it is.
        fate: What became of it.
        exported: Whether `from dilated_attention_pytorch import name` worked.
        old_modules: Modules it could be imported from, besides the package itself.
        target: `module:attribute` that an import of the old name gives; empty where it is gone, and
            for kinds that are not imported.
        historical: `module:attribute` of the compat package that computes what history computed;
            empty where nothing does. The same as `target` where the fate is `compat`.
        ran: How far it got in history.
        since: Version in which its fate began; empty where it is kept.
        removed_in: Version that drops it; empty where it stays.
        replacement: What to use instead, as the messages say it; empty where nothing replaces it.
        promised_reason: The reason the historical warning gave, kept word for word; empty where
            there was no such warning.
        why: Why it has its fate, as one clause without its full stop; empty where it is kept, and
            where `promised_reason` stands.
        measured: What measurement showed, as one clause without its full stop.
        defect: What the numbers are, as the rest of a sentence that begins with the name; empty
            where they are right.
        result_change: How numbers change when the replacement is used; empty where they do not.
        relative_error: |wrong - right| / |right|, in the Euclidean norm over all outputs, full and
            causal; NaN where outputs are NaN. Measured with n = 64, segment lengths 16, 32, 64 and
            dilation rates 1, 2, 4 on standard normal inputs (and initial weights), by the tests of
            this package; `error_against` says where something else was measured. None where the
            numbers are right.
        error_against: What is right, and with which other settings the error was measured.
        before: A snippet of old code; empty where there is none to show.
        after: The same with the replacement.
        rewrite: How calls are rewritten automatically; None where they are not.
        codemod: What an automatic migration does about the name, or why it does nothing.
        guide_anchor: Anchor of the name's section in the guide.
    """

    name: str
    kind: Kind
    fate: Fate
    exported: bool = False
    old_modules: tuple[str, ...] = ()
    target: str = ""
    historical: str = ""
    ran: Ran = Ran.FORWARD
    since: str = ""
    removed_in: str = ""
    replacement: str = ""
    promised_reason: str = ""
    why: str = ""
    measured: str = ""
    defect: str = ""
    result_change: str = ""
    relative_error: tuple[float, float] | None = None
    error_against: str = ""
    before: str = ""
    after: str = ""
    rewrite: Rewrite | None = None
    codemod: str
    guide_anchor: str = "every-old-name"

    @property
    def identifier(self) -> str:
        """The identifier in an import statement; the name itself for kinds without one."""
        return self.name.rpartition(".")[2] if self.kind in _IMPORTED else self.name

    @property
    def is_imported(self) -> bool:
        """Whether the name stands in import statements."""
        return self.kind in _IMPORTED

    @property
    def guide(self) -> str:
        """Address of the name's section in the guide."""
        return f"{GUIDE}#{self.guide_anchor}"

    @property
    def deprecation_message(self) -> str:
        """What the use of a deprecated name says.

        Where history promised a text, that text word for word, then what was measured.
        """
        if self.promised_reason:
            said = (
                f"{self.identifier} is deprecated due to incorrect implementation. "
                f"{self.promised_reason} Please use {self.replacement} instead. "
                f"This implementation will be removed in v{self.removed_in}."
            )
        else:
            said = (
                f"{self.identifier} is deprecated since v{self.since}: {self.why}. "
                f"Please use {self.replacement} instead. It will be removed in v{self.removed_in}."
            )
        return f"{said} Measured: {self.measured}; see {self.guide}."

    @property
    def numbers_message(self) -> str:
        """What the first wrong forward says about its own result.

        Raises:
            ValueError: The record has no measured error.
        """
        if self.relative_error is None:
            raise ValueError(f"{self.name} has no measured error: its numbers are not wrong")
        full, causal = self.relative_error
        masked = "rows of NaN" if math.isnan(causal) else f"{causal:.2f} times"
        return (
            f"{self.identifier} {self.defect}. Its error was measured at {full:.2f} times the norm "
            f"of the right result ({masked} with is_causal). See {self.guide}."
        )

    @property
    def refusal(self) -> str:
        """What the constructor of a class says that could never be constructed."""
        return (
            f"{self.identifier}: {self.measured}. "
            f"Please use {self.replacement} instead; see {self.guide}"
        )

    @property
    def advice(self) -> str:
        """What became of a name that is not served, and what to use instead."""
        use = f"; use {self.replacement}" if self.replacement else "; nothing replaces it"
        since = f" since v{self.removed_in}" if self.removed_in else ""
        return f"{self.name} is gone{since}: {self.why}{use}. See {self.guide}."


_IMPORTED = frozenset((Kind.CLASS, Kind.FUNCTION, Kind.CONSTANT))

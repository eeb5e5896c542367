"""Hypothesis for runs of the kit inside a test: few examples, always the same, no shrinking."""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile(
    "quick",
    phases=[Phase.explicit, Phase.generate],
    max_examples=8,
    derandomize=True,
    database=None,
)
settings.load_profile("quick")

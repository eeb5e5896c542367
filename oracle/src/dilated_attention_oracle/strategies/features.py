"""Names of what a drawn case may use; an implementation supports some of them."""

from __future__ import annotations

from collections.abc import Iterable

PATTERN_FEATURES = ("longnet", "torchscale", "head_groups", "table", "torchscale_switches")
OPTION_FEATURES = ("causal", "scale", "key_mask", "documents", "dropout")
FEATURES = (*PATTERN_FEATURES, *OPTION_FEATURES, "grouped_query")


def check_features(features: Iterable[str]) -> frozenset[str]:
    """The features as a set.

    Args:
        features: Names out of `FEATURES`.

    Returns:
        The set.

    Raises:
        ValueError: For an unknown name.
    """
    chosen = frozenset(features)
    unknown = sorted(chosen.difference(FEATURES))
    if unknown:
        raise ValueError(f"features: expected names out of {FEATURES}, got {unknown}")
    return chosen

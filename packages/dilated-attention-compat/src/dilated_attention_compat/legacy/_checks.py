"""What the historical classes refused, with messages that say how to mend it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import Tensor

_PATTERN_TYPES = (
    *("dilated_sparse", "local_window", "global_local", "axial", "random", "learned", "hybrid"),
)


def _positive_ints(name: str, values: Sequence[int]) -> None:
    for i, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(
                f"{name}[{i}] must be an int, got {value!r} of type {type(value).__name__}; "
                "pass a positive int"
            )
        if value <= 0:
            raise ValueError(f"{name}[{i}] must be positive, got {value}; pass a positive int")


def check_pattern(segment_lengths: Sequence[int], dilation_rates: Sequence[int]) -> None:
    """Check the two lists that make a pattern.

    Raises:
        TypeError: An entry is not an int.
        ValueError: A list is empty, the lengths differ or an entry is not positive.
    """
    if not segment_lengths:
        raise ValueError("segment_lengths cannot be empty; pass one positive int per head group")
    if len(segment_lengths) != len(dilation_rates):
        raise ValueError(
            "segment_lengths and dilation_rates must have the same length: "
            f"{len(segment_lengths)} != {len(dilation_rates)}; pass one rate per segment length"
        )
    _positive_ints("segment_lengths", segment_lengths)
    _positive_ints("dilation_rates", dilation_rates)


def check_positive(name: str, value: float) -> None:
    """Check that a scalar option is positive.

    Raises:
        ValueError: It is not.
    """
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}; pass a larger number")


def check_divisible_heads(embed_dim: int, num_heads: int) -> None:
    """Check the widths of a multihead layer.

    Raises:
        ValueError: One is not positive, or num_heads does not divide embed_dim.
    """
    check_positive("embed_dim", embed_dim)
    check_positive("num_heads", num_heads)
    if embed_dim % num_heads:
        raise ValueError(
            f"embed_dim ({embed_dim}) must be divisible by num_heads ({num_heads}); "
            "change one of the two"
        )


def check_probability(dropout: float) -> None:
    """Check a dropout probability.

    Raises:
        ValueError: It lies outside 0 to 1.
    """
    if not 0.0 <= dropout <= 1.0:
        raise ValueError(f"dropout must be between 0.0 and 1.0, got {dropout}; pass a probability")


def check_open_unit(name: str, value: float) -> None:
    """Check that a ratio lies between 0 and 1, both left out.

    Raises:
        ValueError: It does not.
    """
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} must be between 0 and 1 (exclusive), got {value}; pass a ratio")


def check_one_of(name: str, value: object, known: Collection[object]) -> None:
    """Check that an option is one of those known.

    Raises:
        ValueError: It is not.
    """
    if value not in known:
        raise ValueError(f"{name} must be one of {sorted(known, key=str)}, got {value!r}")


def check_sparse_pattern(pattern_type: str, sparsity_ratio: float) -> None:
    """Check what the historical configuration of a block-sparse layer checked.

    `axial`, `random`, `learned` and `hybrid` pass here and have always raised in forward.

    Raises:
        ValueError: The type is unknown, or the ratio does not lie between 0 and 1.
    """
    check_one_of("pattern_type", pattern_type, _PATTERN_TYPES)
    check_open_unit("sparsity_ratio", sparsity_ratio)


def check_sparsity_range(least: float, most: float) -> None:
    """Check the two ends of a range of ratios.

    Raises:
        ValueError: One does not lie between 0 and 1, or they are not in ascending order.
    """
    check_open_unit("min_sparsity", least)
    check_open_unit("max_sparsity", most)
    if least >= most:
        raise ValueError(
            f"min_sparsity ({least}) must be less than max_sparsity ({most}); neither has an "
            "effect, leave them out"
        )


def check_same(query: Tensor, key: Tensor, value: Tensor, ndim: int, axes: str) -> None:
    """Check that query, key and value agree in rank, shape, device and dtype.

    Args:
        query: The tensor the others are compared with.
        key: Any tensor.
        value: Any tensor.
        ndim: Number of dimensions expected.
        axes: Their names, for the message.

    Raises:
        ValueError: Ranks, shapes or devices differ from what is expected.
        TypeError: Dtypes differ.
    """
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.ndim != ndim:
            raise ValueError(
                f"{name} must be a {ndim}D tensor {axes}, got {tensor.ndim}D of shape "
                f"{tuple(tensor.shape)}; reshape it"
            )
        if tensor.shape != query.shape:
            raise ValueError(
                f"{name} must have the shape of query {tuple(query.shape)}, got "
                f"{tuple(tensor.shape)}; lengths and head counts cannot differ here"
            )
        if tensor.device != query.device:
            raise ValueError(
                f"{name} must be on the device of query, {query.device}, got {tensor.device}; "
                "move it with .to()"
            )
        if tensor.dtype != query.dtype:
            raise TypeError(
                f"{name} must have the dtype of query, {query.dtype}, got {tensor.dtype}; "
                "convert it with .to()"
            )


def check_divides(
    n: int, num_heads: int, segment_lengths: Sequence[int], num_groups: int | None = None
) -> None:
    """Check a sequence length and a number of heads against a pattern.

    Args:
        n: Sequence length.
        num_heads: Number of heads.
        segment_lengths: Those that must divide n.
        num_groups: Number of head groups; one per segment length where None.

    Raises:
        ValueError: A segment length does not divide n, or there are fewer heads than groups.
    """
    for w in segment_lengths:
        if n % w:
            raise ValueError(
                f"Sequence length ({n}) must be divisible by every segment length, got {w}; "
                f"pad the sequence to {-(-n // w) * w}"
            )
    num_groups = len(segment_lengths) if num_groups is None else num_groups
    if num_heads < num_groups:
        raise ValueError(
            f"num_heads ({num_heads}) must be >= num_groups ({num_groups}); "
            "use more heads or fewer segment lengths"
        )

"""The sizes of a decoder."""

from __future__ import annotations

from dataclasses import dataclass

from ..pattern import DilationPattern


@dataclass(frozen=True)
class DecoderConfig:
    """The sizes of a `DilatedDecoderLM`.

    Args:
        pattern: Branches and offset rule of every layer's attention.
        vocab_size: Number of tokens; 256 where tokens are bytes.
        embed_dim: Width e of the residual stream, a multiple of `num_heads`.
        num_heads: Attention heads H; `embed_dim / num_heads` is even (rotary pairs) and at
            most 256.
        num_layers: Number of blocks N.
        feed_forward_dim: Inner width of the feed-forward layers.
        rotary_base: Base of the rotary frequencies, above 1.

    Raises:
        ValueError: Sizes that are not positive or do not fit together, or a pattern that cannot
            serve `num_heads` heads.
        TypeError: A size that is not an int, or a pattern that is not a `DilationPattern`.
    """

    pattern: DilationPattern
    vocab_size: int = 256
    embed_dim: int = 96
    num_heads: int = 4
    num_layers: int = 2
    feed_forward_dim: int = 384
    rotary_base: float = 10_000.0

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, DilationPattern):
            raise TypeError(
                f"pattern must be a DilationPattern, got {type(self.pattern).__name__}; build one "
                "with DilationPattern.longnet(segment_lengths, dilation_rates)"
            )
        for name in ("vocab_size", "embed_dim", "num_heads", "num_layers", "feed_forward_dim"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, got {value!r}")
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.embed_dim % self.num_heads or self.head_dim % 2 or self.head_dim > 256:
            raise ValueError(
                "embed_dim must be num_heads times an even head dimension of at most 256, got "
                f"embed_dim={self.embed_dim} and num_heads={self.num_heads}"
            )
        if not self.rotary_base > 1:
            raise ValueError(f"rotary_base must be above 1, got {self.rotary_base}")
        self.pattern.offsets(self.num_heads)

    @property
    def head_dim(self) -> int:
        """Width d of a head."""
        return self.embed_dim // self.num_heads

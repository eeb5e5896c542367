"""One block of a decoder."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Attend, CausalSelfAttention
from .config import DecoderConfig
from .rotary import Rotation


class FeedForward(nn.Module):
    """`fc2(inner_norm(gelu(fc1(x))))`, with the inner norm of MAGNETO's sub-LN.

    Args:
        embed_dim: Width e of x.
        inner_dim: Width of the inner layer.
    """

    def __init__(self, embed_dim: int, inner_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, inner_dim, bias=False)
        self.inner_norm = nn.LayerNorm(inner_dim)
        self.fc2 = nn.Linear(inner_dim, embed_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, n, e) of (b, n, e), row by row."""
        out: Tensor = self.fc2(self.inner_norm(F.gelu(self.fc1(x))))
        return out


class DecoderBlock(nn.Module):
    """Pre-norm attention and feed-forward, each added to the residual stream.

        x <- x + attention(attention_norm(x));  x <- x + feed_forward(feed_forward_norm(x))

    Args:
        config: Sizes.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.embed_dim)
        self.attention = CausalSelfAttention(config.embed_dim, config.num_heads)
        self.feed_forward_norm = nn.LayerNorm(config.embed_dim)
        self.feed_forward = FeedForward(config.embed_dim, config.feed_forward_dim)

    def forward(self, x: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        """(b, n, e) of (b, n, e)."""
        x = x + self.attention(self.attention_norm(x), rotation, attend)
        out: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return out

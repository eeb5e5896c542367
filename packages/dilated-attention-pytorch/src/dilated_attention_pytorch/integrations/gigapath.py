"""Prov-GigaPath's slide encoder (Xu et al. 2024) with this package's attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..functional.validation import check_pattern
from ..pattern import DilationPattern
from . import _ring
from ._attention import TorchscaleAttention
from ._placement import Placement

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh


class _FeedForward(nn.Module):
    """`fc2(ffn_layernorm(gelu(fc1(x))))`, gelu in float32 for every dtype, as published."""

    def __init__(self, embed_dim: int, inner_dim: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, inner_dim)
        self.fc2 = nn.Linear(inner_dim, embed_dim)
        self.ffn_layernorm = nn.LayerNorm(inner_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.fc1(x)
        inner = F.gelu(inner.float()).to(inner.dtype)
        out: Tensor = self.dropout(self.fc2(self.ffn_layernorm(inner)))
        return out


class _Layer(nn.Module):
    """Pre-norm attention and feed-forward, each dropped for a whole slide with `drop_path`."""

    def __init__(
        self, attention: TorchscaleAttention, embed_dim: int, inner_dim: int, dropout: float,
        drop_path: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.self_attn = attention
        self.self_attn_layer_norm = nn.LayerNorm(embed_dim)
        self.ffn = _FeedForward(embed_dim, inner_dim, dropout)
        self.final_layer_norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = _ring.SharedDropPath(drop_path, attention.placement)

    def forward(self, x: Tensor, encoder_padding_mask: Tensor | None) -> tuple[Tensor, None]:
        y = self.self_attn_layer_norm(x)
        y, _ = self.self_attn(y, y, y, key_padding_mask=encoder_padding_mask)
        x = x + self.drop_path(self.dropout(y))
        return x + self.drop_path(self.ffn(self.final_layer_norm(x))), None


class _Encoder(nn.Module):
    """The stack of layers and a last norm; returns the input, every layer's output, the normed."""

    def __init__(self, layers: list[_Layer], embed_dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(layers)
        self.layer_norm = nn.LayerNorm(embed_dim)

    def forward(
        self, x: Tensor, encoder_padding_mask: Tensor | None
    ) -> dict[str, Tensor | list[Tensor]]:
        x = self.dropout(x)
        if encoder_padding_mask is not None:
            x = x * ~encoder_padding_mask[..., None]
        states = [x]
        for layer in self.layers:
            x, _ = layer(x, encoder_padding_mask=encoder_padding_mask)
            states.append(x)
        return {"encoder_out": self.layer_norm(x), "encoder_states": states}


class _PatchEmbed(nn.Module):
    """A projection of tile embeddings."""

    def __init__(self, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(in_chans, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.proj(x)
        return out


class SlideEncoder(nn.Module):
    """Prov-GigaPath's slide encoder: its `state_dict` keys and its numbers, PyTorch alone.

    Tiles' embeddings are projected, placed on a grid by fixed sine and cosine embeddings of their
    coordinates, a class token is put before them, and pre-norm layers with torchscale's dilated
    attention and sub-LN follow. Position embeddings are computed for the tiles at hand; the
    published code keeps those of a million grid cells (3 GB).

    The defaults are those of `gigapath_slide_enc12l768d` (Xu et al., Nature 2024).

    Args:
        in_chans: width of a tile's embedding.
        embed_dim: width e, a multiple of 4 and of `num_heads`.
        depth: number of layers.
        num_heads: number of heads.
        mlp_ratio: inner width of the feed-forward layers, as a multiple of e.
        slide_ngrids: cells of the grid along one side.
        tile_size: pixels of a tile along one side.
        global_pool: average over the tiles instead of taking the class token.
        dropout: of embeddings and layers, in training.
        drop_path_rate: stochastic depth of the last layer, in training; rising linearly to it.
        pattern: branches, rule `torchscale`; None for the preset `gigapath`.
        exact: the true operator instead of torchscale's.
        group: a ring; as in `replace_dilated_attention` with layout `replicated`.

    Raises:
        ValueError: sizes that are not positive or do not fit together.
        TypeError: a pattern that is none.
    """

    def __init__(
        self,
        *,
        in_chans: int = 1536,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        slide_ngrids: int = 1000,
        tile_size: int = 256,
        global_pool: bool = False,
        dropout: float = 0.25,
        drop_path_rate: float = 0.1,
        pattern: DilationPattern | None = None,
        exact: bool = False,
        group: ProcessGroup | DeviceMesh | None = None,
    ) -> None:
        super().__init__()
        for name, size in (
            ("in_chans", in_chans),
            ("embed_dim", embed_dim),
            ("depth", depth),
            ("num_heads", num_heads),
            ("slide_ngrids", slide_ngrids),
            ("tile_size", tile_size),
        ):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f"drop_path_rate must lie in [0, 1), got {drop_path_rate}")
        if embed_dim % num_heads or embed_dim % 4:
            raise ValueError(
                "embed_dim must be a multiple of num_heads and of 4 (sine and cosine of two "
                f"coordinates), got {embed_dim} with {num_heads} heads"
            )
        self.slide_ngrids, self.tile_size, self.global_pool = slide_ngrids, tile_size, global_pool
        placement = Placement(group)
        pattern = check_pattern(
            DilationPattern.preset("gigapath") if pattern is None else pattern, num_heads
        )
        layers = []
        for i in range(depth):
            children: dict[str, nn.Module] = {
                name: nn.Linear(embed_dim, embed_dim)
                for name in ("k_proj", "v_proj", "q_proj", "out_proj")
            }
            children["inner_attn_ln"] = nn.LayerNorm(embed_dim)
            attention = TorchscaleAttention(
                children,
                num_heads=num_heads,
                pattern=pattern,
                dropout=0.0,
                exact=exact,
                placement=placement,
            )
            inner = int(embed_dim * mlp_ratio)
            layers.append(
                _Layer(attention, embed_dim, inner, dropout, drop_path_rate * i / max(depth - 1, 1))
            )
        self.patch_embed = _PatchEmbed(in_chans, embed_dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim).normal_(std=0.02))
        self.encoder = _Encoder(layers, embed_dim, dropout)
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        if group is not None:
            _ring.attach(self, placement)

    def forward(
        self,
        x: Tensor,
        coords: Tensor,
        all_layer_embed: bool = False,
        key_padding_mask: Tensor | None = None,
    ) -> list[Tensor]:
        """Embed slides.

        Args:
            x: (b, n, in_chans) embeddings of tiles.
            coords: (b, n, 2) their coordinates in pixels, within the grid of `slide_ngrids` cells
                of `tile_size` pixels on each side.
            all_layer_embed: for each layer, and its input, instead of the last one alone.
            key_padding_mask: (b, n) bool, True where there is no tile; without `exact` at the end
                of a slide only. A padded slide's embedding is that of the slide alone. Coordinates
                of padding are not looked at.

        Returns:
            [(b, e)], one for each layer asked for.

        Raises:
            ValueError: shapes that do not fit, or a tile outside the grid.
            TypeError: a mask that is not bool.
        """
        if x.dim() != 3 or coords.shape != (*x.shape[:2], 2):
            raise ValueError(
                "x must have shape (b, n, in_chans) and coords (b, n, 2), got "
                f"{tuple(x.shape)} and {tuple(coords.shape)}"
            )
        if key_padding_mask is not None:
            if key_padding_mask.dtype != torch.bool:
                raise TypeError(
                    "key_padding_mask must be bool, True where there is no tile, got "
                    f"{key_padding_mask.dtype}"
                )
            if key_padding_mask.shape != x.shape[:2]:
                raise ValueError(
                    f"key_padding_mask must have shape (b, n) = {tuple(x.shape[:2])}, without the "
                    f"class token, got {tuple(key_padding_mask.shape)}"
                )
            coords = coords.masked_fill(key_padding_mask[..., None], 0)
        x = self.patch_embed(x) + self._positions(coords).to(x.dtype)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1).to(x.dtype), x), dim=1)
        mask = None if key_padding_mask is None else F.pad(key_padding_mask, (1, 0))
        found = self.encoder(x, encoder_padding_mask=mask)
        states = found["encoder_states"] if all_layer_embed else [found["encoder_out"]]
        return [self._pool(state, key_padding_mask) for state in states]

    def _pool(self, state: Tensor, ignored: Tensor | None) -> Tensor:
        pooled: Tensor
        if not self.global_pool:
            pooled = self.norm(state)[:, 0]
        elif ignored is None:
            pooled = self.norm(state[:, 1:].mean(dim=1))
        else:
            kept = (~ignored)[..., None]
            # A slide without tiles has the mean 0.
            count = kept.sum(dim=1).clamp(min=1)
            pooled = self.norm((state[:, 1:] * kept).sum(dim=1) / count)
        return pooled

    def _positions(self, coords: Tensor) -> Tensor:
        """(b, n, e): sine and cosine of the column, then of the row, at e/4 frequencies each."""
        cell = (coords / self.tile_size).floor().long()
        place = cell[..., 0] * self.slide_ngrids + cell[..., 1]
        # The published table has no entry for them either.
        if not bool(((place >= 0) & (place < self.slide_ngrids**2)).all()):
            raise ValueError(
                f"coords must lie in the grid of {self.slide_ngrids} x {self.slide_ngrids} cells "
                f"of {self.tile_size} pixels, got {float(coords.min())}..{float(coords.max())}; "
                "give pixels of the whole slide, and mark what is no tile in key_padding_mask"
            )
        sides = (place % self.slide_ngrids, place // self.slide_ngrids)
        quarter = self.norm.weight.shape[0] // 4
        steps = torch.arange(quarter, dtype=torch.float64, device=coords.device) / quarter
        angles = [side[..., None].double() * 10000.0**-steps for side in sides]
        parts = [turn for angle in angles for turn in (angle.sin(), angle.cos())]
        return torch.cat(parts, dim=-1).float()

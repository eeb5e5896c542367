"""torchscale's attention where torchscale is absent: its attributes, and pinned numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dilated_attention_pytorch.integrations import replace_dilated_attention

DATA = Path(__file__).parents[2] / "packages/dilated-attention-pytorch/tests/data"
Arrays = dict[str, np.ndarray[Any, Any]]
# As the pinned modules were built; the values are eval'ed by torchscale.
BRANCHES: dict[str, tuple[list[int], list[int]]] = {
    "encoder": ([5, 10, 64], [1, 2, 4]),
    "shifted": ([7, 10], [3, 4]),
    "decoder": ([4, 16], [1, 2]),
}
HEADS, EMBED = 4, 24


class XPOS(nn.Module):
    """What torchscale's has: a buffer and a number."""

    scale: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.scale_base = 512
        self.register_buffer("scale", torch.empty(head_dim // 2))


class DilatedAttention(nn.Module):
    """Known by its name and its attributes, as torchscale's is; it cannot be called."""

    def __init__(
        self, branches: tuple[list[int], list[int]], *, subln: bool, xpos: bool, **settings: Any
    ) -> None:
        super().__init__()
        self.args = SimpleNamespace(
            segment_length=branches[0], dilated_ratio=branches[1], **settings
        )
        self.num_heads, self.dropout = HEADS, settings.get("attention_dropout", 0.0)
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            setattr(self, name, nn.Linear(EMBED, EMBED))
        self.inner_attn_ln = nn.LayerNorm(EMBED) if subln else None
        self.xpos = XPOS(EMBED // HEADS) if xpos else None


class Model(nn.Module):
    """One attention, called as torchscale's encoder calls it."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.self_attn = attention

    def forward(self, x: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        out, weights = self.self_attn(
            query=x,
            key=x,
            value=x,
            key_padding_mask=mask,
            attn_mask=None,
            rel_pos=None,
            incremental_state=None,
            is_causal=is_causal,
        )
        assert weights is None
        assert isinstance(out, Tensor)
        return out


def pinned(name: str) -> Arrays:
    """Parameters, inputs, outputs and gradients of one module, as torchscale gave them."""
    with np.load(DATA / "torchscale_modules.npz") as stored:
        found = [key for key in stored.files if key.startswith(f"{name}/")]
        return {key.removeprefix(f"{name}/"): stored[key] for key in found}


def bare(name: str = "encoder", **settings: Any) -> Model:
    """Not replaced yet, with drawn parameters."""
    return Model(
        DilatedAttention(
            BRANCHES[name], subln=name != "shifted", xpos=name == "decoder", **settings
        )
    )


def built(name: str, dtype: torch.dtype = torch.float64, **options: Any) -> Model:
    """Replaced, with the pinned parameters."""
    model = bare(name)
    state = {
        key.removeprefix("state/"): torch.tensor(value)
        for key, value in pinned(name).items()
        if key.startswith("state/")
    }
    model.load_state_dict(state)
    replaced = replace_dilated_attention(model, **options)
    assert list(replaced.state_dict()) == list(state)
    return replaced.to(dtype)


def lengths_mask(lengths: list[int], n: int) -> Tensor:
    """(b, n) bool, True from each length on."""
    return torch.arange(n) >= torch.tensor(lengths)[:, None]

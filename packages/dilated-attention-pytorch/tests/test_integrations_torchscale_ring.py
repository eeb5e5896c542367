"""Replaced models over two real processes: outputs, gradients and refusals of one process."""

from __future__ import annotations

import copy
import importlib.util
import os
import pickle
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dilated_attention_oracle import check
from dilated_attention_pytorch import DilationPattern, shard
from dilated_attention_pytorch.integrations import (
    SlideEncoder,
    compare,
    padding,
    replace_dilated_attention,
)
from dilated_attention_pytorch.integrations._placement import Placement
from dilated_attention_pytorch.integrations._ring import SharedDropPath

RANKS, N, EMBED, HEADS = 2, 21, 24, 4
LENGTHS = {"whole": [N, N], "padded": [N, 8], "one rank's": [15, 9]}
Found = dict[str, Tensor]


class XPOS(nn.Module):
    """As torchscale's, with its numbers."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.scale_base = 512
        scale = (torch.arange(0, head_dim, 2) + 0.4 * head_dim) / (1.4 * head_dim)
        self.register_buffer("scale", scale)


class DilatedAttention(nn.Module):
    """Known by its name and attributes."""

    def __init__(self, *, seq_parallel: bool = False) -> None:
        super().__init__()
        self.args = SimpleNamespace(
            segment_length=[5, 10, 64], dilated_ratio=[1, 2, 4], seq_parallel=seq_parallel
        )
        self.num_heads, self.dropout = HEADS, 0.0
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            setattr(self, name, nn.Linear(EMBED, EMBED))
        self.inner_attn_ln = nn.LayerNorm(EMBED)
        self.xpos = XPOS(EMBED // HEADS)


class PositionalEmbedding(nn.Embedding):
    """torchscale's counts from 2."""

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        if positions is None:
            positions = torch.arange(2, x.shape[1] + 2)[None]
        return super().forward(positions)


class Layer(nn.Module):
    """A layer, called and answering as torchscale's."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.self_attn = DilatedAttention(**settings)
        self.norm = nn.LayerNorm(EMBED)
        self.is_moe_layer = False

    def forward(self, x: Tensor, self_attn_padding_mask: Tensor | None = None) -> Any:
        y = self.norm(x)
        y, _ = self.self_attn(y, y, y, key_padding_mask=self_attn_padding_mask, is_causal=True)
        return x + y, None, None, None


class Decoder(nn.Module):
    """A stack of layers over tokens, with position embeddings, as torchscale's."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.embed_tokens = nn.Embedding(11, EMBED)
        self.embed_positions = PositionalEmbedding(N + 2, EMBED)
        self.layers = nn.ModuleList([Layer(**settings) for _ in range(3)])
        self.output_projection = nn.Linear(EMBED, 11)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, dict[str, Any]]:
        x = self.embed_tokens(tokens) + self.embed_positions(tokens)
        states = [x]
        for layer in self.layers:
            x, *_ = layer(x, self_attn_padding_mask=mask)
            states.append(x)
        return self.output_projection(x), {"inner_states": states}


def encoder_inputs() -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(9)
    x = torch.tensor(rng.standard_normal((2, N, 12)))
    return x, torch.tensor(rng.integers(0, 10 * 256, size=(2, N, 2)).astype(np.float64))


def mask_of(name: str) -> Tensor:
    return torch.arange(N) >= torch.tensor(LENGTHS[name])[:, None]


def slides(group: Any, name: str, *, exact: bool) -> Found:
    """A fine-tuning step of the slide encoder, stochastic depth on; gradients averaged by DDP."""
    torch.manual_seed(1)
    pattern = DilationPattern.torchscale(
        [5, 10, 64], [1, 2, 4], phantom_keys=True, detach_mix=True, shift_rows=True
    )
    model: nn.Module = SlideEncoder(
        in_chans=12,
        embed_dim=32,
        depth=3,
        num_heads=4,
        slide_ngrids=10,
        dropout=0.0,
        drop_path_rate=0.6,
        pattern=pattern,
        exact=exact,
        group=group,
    ).double()
    head = nn.Sequential(nn.Linear(32, 3)).double()
    named = [*model.named_parameters(), *head.named_parameters()]
    # The published pooling of all layers leaves the encoder's last norm unused.
    if group is not None:
        model, head = (
            nn.parallel.DistributedDataParallel(x, process_group=group, find_unused_parameters=True)
            for x in (model, head)
        )
    # Ranks draw differently; a slide must be dropped on all of them or on none.
    torch.manual_seed(4 if group is None else 4 + dist.get_rank())
    mask = mask_of(name)
    found = model(*encoder_inputs(), all_layer_embed=True, key_padding_mask=mask)
    head(torch.stack(found).sum(0)).square().sum().backward()
    gradients = {f"grad/{key}": p.grad for key, p in named if p.grad is not None}
    return {f"layer{i}": x.detach() for i, x in enumerate(found)} | gradients


def compiled(group: Any) -> Found:
    """The ring's part of a compiled model stays outside its graphs."""
    torch.manual_seed(1)
    pattern = DilationPattern.torchscale([5, 10, 64], [1, 2, 4])
    sizes: dict[str, Any] = {"in_chans": 12, "embed_dim": 32, "depth": 1, "num_heads": 4}
    model = SlideEncoder(**sizes, slide_ngrids=10, pattern=pattern, group=group).double().eval()
    run = model if group is None else torch.compile(model, backend="eager")
    return {"out": run(*encoder_inputs())[0].detach()}


def decode(group: Any, name: str, layout: str, *, exact: bool) -> Found:
    """A causal model with xPos and position embeddings; gradients as the layout has them."""
    model = replace_dilated_attention(Decoder().double(), exact=exact, group=group, layout=layout)
    if exact:
        model = copy.deepcopy(model)
    tokens = torch.tensor(np.random.default_rng(2).integers(11, size=(2, N)))
    mask = mask_of(name)
    weight = (~mask)[..., None].double()
    own = group is not None and layout == "sharded"
    if own:
        tokens, mask, weight = (shard(x, group=group) for x in (tokens, mask, weight))
    logits, more = model(tokens, mask)
    (logits * weight).square().sum().backward()
    states = torch.stack(more["inner_states"]) * weight
    found = {"logits": (logits * weight).detach(), "states": states.detach()}
    found["told"] = _told(model, tokens, mask) * weight
    for key, p in model.named_parameters():
        assert p.grad is not None
        if group is not None:
            dist.all_reduce(p.grad, group=group)
            p.grad /= 1 if own else group.size()
        found[f"grad/{key}"] = p.grad
    return found


def _told(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """As called without the mask, which `padding` gives in its place."""
    group = next(x.placement for x in model.modules() if hasattr(x, "placement")).group
    with padding(model, mask):
        logits: Tensor = model(tokens)[0].detach()
    assert group is None or group.size() == RANKS
    return logits


def torchscale_model(group: Any, kind: str) -> Found:
    """A whole model of torchscale's own code."""
    sys.path.insert(0, str(Path(__file__).parent))
    import test_integrations_torchscale_parity as parity

    model = replace_dilated_attention(parity.build(kind), group=group)
    tokens = torch.tensor(np.random.default_rng(0).integers(11, size=(2, N)))
    found = model(tokens, return_all_hiddens=True)
    found = (found["encoder_out"], found) if isinstance(found, dict) else found
    states = found[1].get("encoder_states") or found[1]["inner_states"]
    found[0].square().mean().backward()
    results = {"out": found[0].detach(), "states": torch.stack(states).detach()}
    for key, p in model.named_parameters():
        if p.grad is not None:
            if group is not None:
                dist.all_reduce(p.grad, group=group)
                p.grad /= group.size()
            results[f"grad/{key}"] = p.grad
    return results


def comparison(group: Any) -> Found:
    """Every rank has the figures of its rows: the largest of them is that of one process."""
    model = replace_dilated_attention(Decoder().double(), group=group)
    report = compare(model, torch.tensor(np.random.default_rng(2).integers(11, size=(2, N))))
    return {"largest": torch.tensor([x.accumulated.largest for x in report.layers])}


def stochastic_depth(group: Any) -> Found:
    """Ranks whose generators differ drop the sequences that the first rank draws."""
    torch.manual_seed(4 if group is None else 4 + dist.get_rank())
    module = SharedDropPath(0.5, Placement(group))
    return {"kept": module(torch.ones(64, 3, 1))}


def cases() -> Iterator[tuple[str, Any]]:
    for exact in (False, True):
        for name in ("padded",) if exact else LENGTHS:
            yield f"slides {name} {exact}", lambda g, n=name, e=exact: slides(g, n, exact=e)
            for layout in ("replicated", "sharded"):
                yield (
                    f"decode {name} {layout} {exact}",
                    lambda g, n=name, s=layout, e=exact: decode(g, n, s, exact=e),
                )
    yield "compiled", compiled
    yield "comparison", comparison
    yield "stochastic depth", stochastic_depth
    if importlib.util.find_spec("torchscale") is not None:
        yield "torchscale encoder", lambda g: torchscale_model(g, "encoder")
        yield "torchscale decoder", lambda g: torchscale_model(g, "decoder")


def rank_main(rank: int, folder: Path) -> None:
    store = dist.FileStore(str(folder / "store"), RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    group = dist.group.WORLD
    saved = {name: run(group) for name, run in cases()}
    saved["refusals"] = refusals(group)
    saved["benchmark"] = benchmark()
    torch.save(saved, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


def benchmark() -> dict[str, Any]:
    """What benchmarks/gigapath_ring.py writes of one short slide."""
    from benchmarks import gigapath_ring

    arguments = Namespace(layers=1, dtype="float32", batch=1, repeats=1, check=True)
    return gigapath_ring.measure(17, arguments, torch.device("cpu"))


def refusals(group: Any) -> dict[str, str]:
    """Messages of what a ring cannot run, on this rank."""

    def mixture() -> None:
        model = Decoder()
        model.layers[1].is_moe_layer = True
        replace_dilated_attention(model, group=group)

    def other_embedding() -> None:
        model = Decoder()
        model.embed_positions = nn.Identity()
        replace_dilated_attention(model, group=group, layout="sharded")

    def batches() -> None:
        model = replace_dilated_attention(Decoder(), group=group)
        model(torch.zeros(1 + dist.get_rank(), N, dtype=torch.int64))

    def cache() -> None:
        model = replace_dilated_attention(
            nn.Sequential(DilatedAttention()), exact=True, group=group, layout="sharded"
        )
        x = torch.zeros(1, 5, EMBED)
        model[0](x, x, x, {}, is_causal=True)

    calls = {
        "cache": cache,
        "pickle": lambda: pickle.dumps(replace_dilated_attention(Decoder(), group=group)),
        "mixture": mixture,
        "embedding": other_embedding,
        "batches": batches,
        "alone": lambda: replace_dilated_attention(nn.Sequential(DilatedAttention()), group=group),
        "parallel": lambda: replace_dilated_attention(Decoder(seq_parallel=True)),
        "parallel replicated": lambda: replace_dilated_attention(
            Decoder(seq_parallel=True), group=group
        ),
    }
    found = {}
    for name, call in calls.items():
        with pytest.raises((ValueError, TypeError)) as raised:  # the messages are judged below
            call()
        found[name] = str(raised.value)
    return found


MESSAGES = {
    "cache": "a ring holds whole sequences; replace the attention without group=",
    "pickle": "a model on a ring cannot be pickled",
    "mixture": "a mixture of experts divides its capacity",
    "embedding": "cannot tell a Identity where a rank's rows lie",
    "batches": "every rank of the ring needs the same batch, got sizes (1, 2)",
    "alone": "lie in no list `layers` whose rows could be divided",
    "parallel": "built with seq_parallel=True",
    "parallel replicated": "built with seq_parallel=True",
}


@pytest.mark.gloo
@pytest.mark.timeout(240)
@pytest.mark.xdist_group("gloo")
def test_two_processes_equal_one(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    processes = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(RANKS)]
    try:
        codes = [process.wait(200) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0] * RANKS
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(RANKS)]
    for name, run in cases():
        assert_equal(name, run(None), [rank[name] for rank in ranks])
    for rank in ranks:
        assert list(rank["benchmark"]["implementations"]) == ["compatible, R = 2", "exact, R = 2"]
        for name, entry in rank["benchmark"]["implementations"].items():
            assert entry["forward"]["ms"] > 0 < entry["fine_tuning"]["ms"]
            size, largest = entry["apart"]["size"], entry["apart"]["largest"]
            whole = np.array([size])
            check(f"benchmark {name}", whole + largest, whole, whole, "float32")
        assert rank["refusals"].keys() == MESSAGES.keys()
        for name, message in MESSAGES.items():
            assert message in rank["refusals"][name]


def assert_equal(name: str, whole: Found, ranks: list[Found]) -> None:
    """The ranks' results against one process's, gradients as the one vector that they are."""
    assert all(rank.keys() == whole.keys() for rank in ranks)
    gradients = [key for key in whole if key.startswith("grad/")]
    for key in whole.keys() - gradients:
        if "sharded" in name:
            ranks_found = [torch.cat([rank[key] for rank in ranks], dim=-2)]
        elif key == "largest":
            ranks_found = [torch.stack([rank[key] for rank in ranks]).amax(0)]
        else:
            ranks_found = [rank[key] for rank in ranks]
        for found in ranks_found:
            want = whole[key].numpy()
            check(f"{name} {key}", found.numpy(), want, want, "float64", np.full_like(want, 1.0))
    if gradients:
        want = torch.cat([whole[key].ravel() for key in gradients]).numpy()
        for rank in ranks:
            flat = torch.cat([rank[key].ravel() for key in gradients]).numpy()
            check(f"{name} gradients", flat, want, want, "float64")


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    rank_main(int(sys.argv[2]), Path(sys.argv[1]))

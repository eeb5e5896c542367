"""The slide encoder: Prov-GigaPath's pinned numbers, padded batches, a fine-tuning step, a ring."""

from __future__ import annotations

from argparse import Namespace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import gigapath
from torch import Tensor, nn

from dilated_attention_oracle import check
from dilated_attention_pytorch import DilationPattern
from dilated_attention_pytorch.bench.machine import CpuMachine
from dilated_attention_pytorch.integrations import SlideEncoder, attention_maps, compare, layers_of

DATA = Path(__file__).parent / "data" / "gigapath_slide_encoder.npz"
SMALL = DilationPattern.torchscale(
    [5, 10, 64], [1, 2, 4], phantom_keys=True, detach_mix=True, shift_rows=True
)
SIZES: dict[str, Any] = {
    "in_chans": 12,
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 4,
    "slide_ngrids": 10,
    "pattern": SMALL,
}


@lru_cache(maxsize=1)
def pinned() -> dict[str, Tensor]:
    with np.load(DATA) as stored:
        return {key: torch.tensor(stored[key]) for key in stored.files}


def state() -> dict[str, Tensor]:
    return {
        key.removeprefix("state/"): value
        for key, value in pinned().items()
        if key.startswith("state/")
    }


def built(**options: Any) -> SlideEncoder:
    model = SlideEncoder(**SIZES, **options)
    model.load_state_dict(state())
    return model.double().eval()


def test_the_keys_and_their_order_are_gigapaths() -> None:
    assert list(SlideEncoder(**SIZES).state_dict()) == list(state())


def test_embeddings_and_gradients_are_those_that_gigapath_gave() -> None:
    model = built()
    vectors = pinned()
    layers = model(vectors["x"], vectors["coords"], all_layer_embed=True)
    (out,) = model(vectors["x"], vectors["coords"])
    for name, value in {
        "out": out,
        **{f"layer{i}": layer for i, layer in enumerate(layers)},
    }.items():
        want = vectors[f"float64/{name}"].numpy()
        # Position embeddings are float32 numbers in the published code as well.
        check(name, value.detach().numpy(), want, want, "float64")
    out.square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    stored = [key for key in vectors if key.startswith("float64/grad/")]
    assert {key.removeprefix("float64/grad/") for key in stored} == gradients.keys()
    ours = np.concatenate([_flat(gradients[key.removeprefix("float64/grad/")]) for key in stored])
    want = np.concatenate([_flat(vectors[key]) for key in stored])
    check("gradients", ours, want, want, "float64")


def _flat(tensor: Tensor | None) -> np.ndarray[Any, Any]:
    assert tensor is not None
    return tensor.numpy().ravel()


@pytest.mark.parametrize("global_pool", [False, True])
@pytest.mark.parametrize("exact", [False, True])
def test_a_padded_batch_is_its_slides_alone(exact: bool, global_pool: bool) -> None:
    model = built(exact=exact, global_pool=global_pool)
    x, coords = pinned()["x"], pinned()["coords"]
    lengths = [x.shape[1], 11]
    mask = torch.arange(x.shape[1]) >= torch.tensor(lengths)[:, None]
    found = model(x, coords, all_layer_embed=True, key_padding_mask=mask)
    for i, length in enumerate(lengths):
        alone = model(x[i : i + 1, :length], coords[i : i + 1, :length], all_layer_embed=True)
        for ours, want in zip(found, alone, strict=True):
            expected = want[0].detach().numpy()
            check("slide", ours[i].detach().numpy(), expected, expected, "float64")


def test_the_published_shape() -> None:
    with torch.device("meta"):
        model = SlideEncoder()
    assert sum(p.numel() for p in model.parameters()) == 86_330_880
    assert len(layers_of(model)) == 12
    layer = next(iter(layers_of(model).values()))
    assert layer.num_heads == 16
    assert layer.pattern == DilationPattern.preset("gigapath")


def test_fine_tuning_steps_learn() -> None:
    """Dropout and stochastic depth on, two slides of different length, a linear head."""
    torch.manual_seed(0)
    model = SlideEncoder(**SIZES, drop_path_rate=0.3)
    head = nn.Linear(32, 2)
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    x, coords = pinned()["x"].float(), pinned()["coords"]
    mask = torch.arange(x.shape[1]) >= torch.tensor([x.shape[1], 11])[:, None]
    losses = []
    for _ in range(12):
        (embedding,) = model(x, coords, key_padding_mask=mask)
        loss = nn.functional.cross_entropy(head(embedding), torch.tensor([0, 1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in parameters)
    assert sum(losses[-3:]) < sum(losses[:3])


def test_stochastic_depth_drops_whole_slides_and_keeps_the_mean() -> None:
    from dilated_attention_pytorch.integrations._placement import Placement
    from dilated_attention_pytorch.integrations._ring import SharedDropPath

    torch.manual_seed(0)
    module = SharedDropPath(0.25, Placement())
    found = module(torch.ones(4000, 3, 2))
    assert set(found.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert (found == found[:, :1, :1]).all()
    # Five standard deviations of the mean of 4,000 draws.
    assert abs(float(found.mean()) - 1) < 5 * (0.25 / 0.75 / 4000) ** 0.5
    assert (module.eval()(torch.ones(9, 3, 2)) == 1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits(dtype: torch.dtype) -> None:
    x, coords = pinned()["x"], pinned()["coords"]
    (found,) = built().to(dtype)(x.to(dtype), coords)
    assert found.dtype == dtype
    assert torch.allclose(found.double(), built()(x, coords)[0], atol=0.15)


def test_the_class_tokens_attention_in_every_layer() -> None:
    model = built()
    x, coords = pinned()["x"], pinned()["coords"]
    found = attention_maps(model, [0], x, coords)
    assert list(found) == [f"encoder.layers.{i}.self_attn" for i in range(3)]
    for weights in found.values():
        total = weights.dense().sum(-1)
        # The rest is what torchscale's phantom keys take.
        assert (total <= 1 + 1e-12).all()
        assert (total > 0.1).all()


def test_compare_runs_through_all_layers() -> None:
    model = built()
    report = compare(model, pinned()["x"], pinned()["coords"])
    first, *rest = report.layers
    assert first.alone == first.accumulated
    assert all(layer.alone != layer.accumulated for layer in rest)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"embed_dim": 30}, "embed_dim must be a multiple of num_heads and of 4"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"num_heads": 0}, "num_heads must be at least 1"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate must lie in \[0, 1\)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SlideEncoder(**SIZES | change)


def test_a_pattern_must_be_one() -> None:
    with pytest.raises(TypeError, match="pattern must be a DilationPattern, got str"):
        SlideEncoder(**SIZES | {"pattern": "gigapath"})


@pytest.mark.parametrize(
    ("coords", "mask", "words"),
    [
        (torch.zeros(2, 8, 2), None, r"coords \(b, n, 2\), got \(2, 9, 12\) and \(2, 8, 2\)"),
        (torch.zeros(1, 9, 2), None, r"coords \(b, n, 2\)"),
        (torch.full((2, 9, 2), -1.0), None, "must lie in the grid of 10 x 10 cells of 256 pixels"),
        (torch.full((2, 9, 2), 2560.0), None, "must lie in the grid"),
        (torch.full((2, 9, 2), torch.nan), None, "must lie in the grid"),
        (torch.zeros(2, 9, 2), torch.zeros(2, 10, dtype=torch.bool), "without the class token"),
    ],
)
def test_tiles_that_do_not_fit_are_refused(coords: Tensor, mask: Tensor | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SlideEncoder(**SIZES)(torch.zeros(2, 9, 12), coords, key_padding_mask=mask)


def test_a_mask_must_be_bool_and_what_it_hides_may_be_anything() -> None:
    model, x, coords = built(), pinned()["x"], pinned()["coords"]
    mask = torch.arange(x.shape[1]) >= torch.tensor([x.shape[1], 11])[:, None]
    with pytest.raises(
        TypeError, match=r"must be bool, True where there is no tile, got torch\.int"
    ):
        model(x, coords, key_padding_mask=mask.int())
    spoiled = coords.masked_fill(mask[..., None], -torch.inf)
    (found,), (expected,) = (model(x, c, key_padding_mask=mask) for c in (spoiled, coords))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("global_pool", [False, True])
def test_a_slide_without_tiles_is_embedded_all_the_same(global_pool: bool) -> None:
    model, x, coords = built(global_pool=global_pool), pinned()["x"], pinned()["coords"]
    mask = torch.tensor([False, True])[:, None].expand(x.shape[:2])
    (found,) = model(x, coords, key_padding_mask=mask)
    (alone,) = model(x[1:, :0], coords[1:, :0]) if not global_pool else (model.norm.bias[None],)
    expected = alone.detach().numpy()
    check("no tiles", found[1:].detach().numpy(), expected, expected, "float64")


def test_the_benchmark_times_each_implementation_or_says_why_not() -> None:
    arguments = Namespace(
        layers=1,
        dtype="float32",
        batch=2,
        implementation=None,
        forward_only=False,
        parity=True,
        parity_only=False,
        quick=True,
    )
    result = gigapath.measure(12, arguments, CpuMachine())
    found = result["implementations"]
    assert list(found) == list(gigapath.IMPLEMENTATIONS)
    for name in ("compatible", "exact", "dense"):
        assert found[name]["forward"]["ms"] > 0
        assert found[name]["fine_tuning"]["ms"] > 0
    present = "absent" not in found["torchscale"]
    assert present == ("parity_with_torchscale" in result)


def test_the_comparison_finds_the_layer_that_differs() -> None:
    """Outputs from that layer on, gradients everywhere."""
    model, other = built(), built()
    layers_of(other)["encoder.layers.1.self_attn"].exact = True
    x, coords = pinned()["x"], pinned()["coords"]
    first, second, third = (gigapath.trace(m, x, coords) for m in (model, built(), other))
    same, differing = gigapath.apart(first, second), gigapath.apart(first, third)
    assert all(entry["largest"] == 0 < entry["size"] for found in same.values() for entry in found)
    assert [entry["largest"] > 0 for entry in differing["output"]] == [False, True, True]
    gradients = differing["gradient"] + differing["input_gradient"]
    assert all(entry["largest"] > 0 for entry in gradients)


def test_every_implementation_of_the_benchmark_has_the_same_weights() -> None:
    arguments = Namespace(layers=1, dtype="float32", batch=1)
    built = [gigapath.build(name, arguments, torch.device("cpu"))[0] for name in ("exact", "dense")]
    for a, b in zip(*(model.state_dict().values() for model in built), strict=True):
        assert torch.equal(a, b)


def test_dense_attention_in_the_benchmark_is_dense() -> None:
    """It is ours with one undilated segment, and neither of ours with GigaPath's branches."""
    arguments = Namespace(layers=1, dtype="float32", batch=1)
    x, coords = (t.double() for t in gigapath.tiles(9, arguments, torch.device("cpu")))
    outs = {}
    for name in ("dense", "exact", "compatible", "undilated"):
        model, _ = gigapath.build("exact" if name == "undilated" else name, arguments, x.device)
        if name == "undilated":
            for layer in layers_of(model).values():
                layer.trained_pattern = DilationPattern.longnet([9], [1])
        outs[name] = model.double()(x, coords)[0].detach().numpy()
    check("dense", outs["dense"], outs["undilated"], outs["undilated"], "float64")
    for name in ("exact", "compatible"):
        assert not np.allclose(outs["dense"], outs[name], rtol=0, atol=1e-3)

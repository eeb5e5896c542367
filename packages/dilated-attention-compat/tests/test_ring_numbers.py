"""The compat classes give the historical numbers, forward, backward and at initialisation.

The defect is stated twice, independently of the package: in NumPy float64 as the reference, and
in plain PyTorch float32 as the naive run that the tolerance is derived from.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import dilated_attention_compat as compat
from dilated_attention_oracle import tolerance

Array = npt.NDArray[np.float64]
SEGMENTS, RATES = [16, 32, 64], [1, 2, 4]
# Taken by name: type checkers flag the classes themselves, as they should.
RingDilatedAttention = compat.load(compat.RECORDS[0])
RingMultiheadDilatedAttention = compat.load(compat.RECORDS[1])
VECTORS = np.load(Path(__file__).parent / "data" / "ring_vectors.npz")


@pytest.fixture(autouse=True)
def _deprecated_on_purpose() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", compat.RingAttentionDeprecationWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def head_groups(num_heads: int) -> list[range]:
    groups = len(SEGMENTS)
    sizes = [num_heads // groups + (i < num_heads % groups) for i in range(groups)]
    return [range(sum(sizes[:i]), sum(sizes[: i + 1])) for i in range(groups)]


def defect(q: Array, k: Array, v: Array, causal: bool, dout: Array | None = None) -> list[Array]:
    """Softmax over the heads of a group at one position; gradients too where dout is given."""
    _, n, num_heads, d = q.shape
    out, dq, dk, dv = (np.zeros(q.shape) for _ in range(4))
    for i, heads in enumerate(head_groups(num_heads)):
        for p in range(n):
            if (p % SEGMENTS[i]) % RATES[i] != i % RATES[i]:
                continue
            for x in heads:
                seen = [s for s in heads if s <= x or not causal]
                score = np.exp([q[0, p, x] @ k[0, p, s] / np.sqrt(d) for s in seen])
                weight = score / score.sum()
                row = weight @ v[0, p, seen] / len(SEGMENTS)
                out[0, p, x] = row
                if dout is None:
                    continue
                g = dout[0, p, x]
                ds = weight * (v[0, p, seen] @ g / len(SEGMENTS) - g @ row) / np.sqrt(d)
                dq[0, p, x] += ds @ k[0, p, seen]
                dk[0, p, seen] += np.outer(ds, q[0, p, x])
                dv[0, p, seen] += np.outer(weight, g) / len(SEGMENTS)
    return [out, dq, dk, dv]


def wrong(q: Array, k: Array, v: Array, causal: bool) -> Array:
    return defect(q, k, v, causal)[0]


def over_tokens(q: Array, k: Array, v: Array, causal: bool) -> Array:
    """The same pattern and head groups, attending over tokens as was meant."""
    n, num_heads, d = q.shape[1:]
    p, t = np.arange(n)[:, None], np.arange(n)[None, :]
    out = np.zeros(q.shape)
    for i, heads in enumerate(head_groups(num_heads)):
        w, r = SEGMENTS[i], RATES[i]
        seen = (p % w % r == i % r) & (t % w % r == i % r) & (p // w == t // w)
        seen &= (t <= p) | (not causal)
        for x in heads:
            score = np.exp(q[0, :, x] @ k[0, :, x].T / np.sqrt(d)) * seen
            mass = score.sum(axis=1, keepdims=True)
            share = np.divide(score, mass, out=np.zeros_like(score), where=mass > 0)
            out[0, :, x] = share @ v[0, :, x] / len(SEGMENTS)
    return out


def naive(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    """The defect in one pass of plain PyTorch: all heads against all heads, masked."""
    _, n, num_heads, d = q.shape
    same = torch.zeros(n, num_heads, num_heads, dtype=torch.bool)
    for i, heads in enumerate(head_groups(num_heads)):
        block = torch.ones(len(heads), len(heads), dtype=torch.bool)
        rows = slice(i % RATES[i], None, RATES[i])
        same[rows, heads.start : heads.stop, heads.start : heads.stop] = (
            block.tril() if causal else block
        )
    score = torch.einsum("bnhd,bnsd->bnhs", q, k) / d**0.5
    weight = score.masked_fill(~same, -torch.inf).softmax(-1).nan_to_num(0.0)
    return torch.einsum("bnhs,bnsd->bnhd", weight, v) / len(SEGMENTS)


def run(
    attend: Callable[..., torch.Tensor], heads: str, causal: bool
) -> list[npt.NDArray[np.float32]]:
    """Return out, dq, dk, dv of a function on the stored inputs."""
    q, k, v = (torch.tensor(VECTORS[f"inputs/{heads}/{x}"]).requires_grad_() for x in "qkv")
    out = attend(q, k, v, causal)
    torch.autograd.backward(out, torch.tensor(VECTORS[f"inputs/{heads}/dout"]))
    grads = (x.grad for x in (q, k, v))
    return [out.detach().numpy(), *(g.numpy() for g in grads if g is not None)]


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("heads", ["h6", "h7"])
def test_core_equals_the_historical_arrays(heads: str, causal: bool) -> None:
    q, k, v, dout = (
        VECTORS[f"inputs/{heads}/{x}"].astype(np.float64) for x in ("q", "k", "v", "dout")
    )
    reference = defect(q, k, v, causal, dout)
    plain = run(naive, heads, causal)
    ours = run(RingDilatedAttention(SEGMENTS, RATES), heads, causal)
    mode = f"{heads}_{'causal' if causal else 'full'}"
    for i, name in enumerate(("out", "dq", "dk", "dv")):
        stored = VECTORS[f"RingDilatedAttention/{mode}/{name}"]
        tolerance.check(f"history {name}", stored, reference[i], plain[i], "float32")
        tolerance.check(f"compat {name}", ours[i], reference[i], plain[i], "float32")


def state() -> dict[str, torch.Tensor]:
    prefix = "RingMultiheadDilatedAttention/state/"
    return {
        key.removeprefix(prefix): torch.tensor(VECTORS[key])
        for key in VECTORS.files
        if key.startswith(prefix)
    }


def multihead() -> Any:
    module = RingMultiheadDilatedAttention(48, 6, SEGMENTS, RATES, device="cpu").eval()
    module.load_state_dict(state())
    return module


def layer(attend: Callable[..., Any], dtype: torch.dtype, causal: bool) -> torch.Tensor:
    """The multihead layer around any attention, spelled out, in any dtype."""
    s = {key: tensor.to(dtype) for key, tensor in state().items()}
    x = torch.tensor(VECTORS["RingMultiheadDilatedAttention/x"]).to(dtype)
    q, k, v = (
        (x @ w.T + b).reshape(1, 64, 6, 8)
        for w, b in zip(s["qkv_proj.weight"].chunk(3), s["qkv_proj.bias"].chunk(3), strict=True)
    )
    y: torch.Tensor = attend(q, k, v, causal).reshape(x.shape)
    y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    y = y * s["q_ln.weight"] + s["q_ln.bias"]
    return y @ s["out_proj.weight"].T + s["out_proj.bias"]


def in_numpy(
    attend: Callable[[Array, Array, Array, bool], Array],
) -> Callable[..., torch.Tensor]:
    return lambda q, k, v, causal: torch.tensor(attend(q.numpy(), k.numpy(), v.numpy(), causal))


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_multihead_equals_the_historical_arrays(causal: bool) -> None:
    reference = layer(in_numpy(wrong), torch.float64, causal)
    plain = layer(naive, torch.float32, causal)
    x = torch.tensor(VECTORS["RingMultiheadDilatedAttention/x"])
    with torch.no_grad():
        out, weights = multihead()(x, is_causal=causal)
    stored = VECTORS[f"RingMultiheadDilatedAttention/{'causal' if causal else 'full'}/out"]
    assert weights is None
    tolerance.check("history", stored, reference, plain, "float32")
    tolerance.check("compat", out, reference, plain, "float32")


def test_a_seed_gives_the_historical_initial_weights() -> None:
    torch.manual_seed(3)
    fresh = RingMultiheadDilatedAttention(48, 6, SEGMENTS, RATES, device="cpu")
    stored = state()
    assert list(fresh.state_dict()) == list(stored)
    for key, tensor in fresh.state_dict().items():
        torch.testing.assert_close(tensor, stored[key], rtol=0, atol=0, msg=key)


def test_gamma_scales_the_value_projection_only() -> None:
    torch.manual_seed(3)
    fresh = RingMultiheadDilatedAttention(48, 6, SEGMENTS, RATES, gamma_init=2.0, device="cpu")
    scaled = state()
    scaled["qkv_proj.weight"][96:] *= 2.0
    for key, tensor in fresh.state_dict().items():
        torch.testing.assert_close(tensor, scaled[key], rtol=0, atol=0, msg=key)


def test_the_stated_error_is_the_measured_one() -> None:
    q, k, v = (VECTORS[f"inputs/h6/{x}"].astype(np.float64) for x in "qkv")
    core, multi = [], []
    for causal in (False, True):
        right = over_tokens(q, k, v, causal)
        core.append(np.linalg.norm(defect(q, k, v, causal)[0] - right) / np.linalg.norm(right))
        wrong_layer = layer(in_numpy(wrong), torch.float64, causal)
        right_layer = layer(in_numpy(over_tokens), torch.float64, causal)
        multi.append(float((wrong_layer - right_layer).norm() / right_layer.norm()))
    for name, measured in (
        ("RingDilatedAttention", core),
        ("RingMultiheadDilatedAttention", multi),
    ):
        record = compat.find(name)
        assert record is not None
        assert record.relative_error == tuple(round(float(x), 2) for x in measured)


def test_no_token_notices_another() -> None:
    core, multi = RingDilatedAttention(SEGMENTS, RATES), multihead()
    torch.manual_seed(0)
    x, wide = torch.randn(1, 64, 6, 4), torch.randn(1, 64, 48)
    for causal in (False, True):
        for t in (0, 8, 63):
            y, wide_y = x.clone(), wide.clone()
            y[:, t] += 1.0
            wide_y[:, t] += torch.randn(48)
            with torch.no_grad():
                moved = (core(y, y, y, causal) - core(x, x, x, causal)).abs().amax((0, 2, 3))
                wide_moved = (
                    (multi(wide_y, is_causal=causal)[0] - multi(wide, is_causal=causal)[0])
                    .abs()
                    .amax((0, 2))
                )
            assert moved.nonzero().flatten().tolist() == [t]
            assert wide_moved.nonzero().flatten().tolist() == [t]


def test_cross_inputs_use_their_own_projection() -> None:
    module = multihead()
    torch.manual_seed(0)
    x, y, z = torch.randn(3, 1, 64, 48)
    with torch.no_grad():
        crossed = module(x, y, z)[0]
        q, k, v = (
            module.qkv_proj(t)[..., i * 48 : (i + 1) * 48].reshape(1, 64, 6, 8)
            for i, t in enumerate((x, y, z))
        )
        assert module.q_ln is not None
        expected = module.out_proj(module.q_ln(naive(q, k, v, False).flatten(2)))
        mixed = wrong(q.double().numpy(), k.double().numpy(), v.double().numpy(), False)
        module.double()
        exact = module.out_proj(module.q_ln(torch.tensor(mixed).flatten(2)))
    tolerance.check("crossed", crossed, exact, expected, "float32")


def test_dropout_falls_on_the_weights_over_heads_in_training_only() -> None:
    core = RingDilatedAttention([8], [1], dropout=0.5)
    torch.manual_seed(0)
    x = torch.randn(1, 8, 1, 4)
    kept = core(x, x, x)
    # One head per group: a single weight, doubled where kept.
    whole = kept.flatten(2).ne(0).all(-1)
    torch.testing.assert_close(kept[whole], 2.0 * x[whole], rtol=0, atol=0)
    assert kept[~whole].eq(0).all()
    assert 0 < int(whole.sum()) < 8
    torch.testing.assert_close(core.eval()(x, x, x), x, rtol=0, atol=0)


def test_two_training_steps_with_and_without_checkpointing() -> None:
    results = []
    for use_checkpointing in (True, False):
        torch.manual_seed(3)
        module = RingMultiheadDilatedAttention(
            48, 6, SEGMENTS, RATES, use_checkpointing=use_checkpointing, device="cpu"
        )
        x = torch.tensor(VECTORS["RingMultiheadDilatedAttention/x"])
        for _ in range(2):
            module.zero_grad()
            module(x)[0].square().sum().backward()
        grads = {name: p.grad for name, p in module.named_parameters()}
        assert grads["k_ln.weight"] is None
        results.append({name: g for name, g in grads.items() if g is not None})
    for name, grad in results[0].items():
        torch.testing.assert_close(grad, results[1][name], rtol=0, atol=0, msg=name)

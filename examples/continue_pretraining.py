"""Turn a short-context model's attention into a dilated one, and train on at a longer context.

    python examples/continue_pretraining.py --out runs/continued

A small Llama is trained on short windows with dense attention. Two copies of it go on at a longer
context on the same batches: one stays dense, of the other the attention is replaced by the dilated
one, its weights as they are. Their losses stand side by side, in the log, in `losses.json` and in
`losses.svg`. With a model of your own, load it in the place of `small_model`.

The text is Python's own standard library, its last tenth held out; tokens are bytes. Needs the
extras `huggingface` and `cli`.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from dilated_attention_pytorch.cli.text import draw_batches, standard_library
from dilated_attention_pytorch.integrations.huggingface import use_dilated_attention


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the losses and their plot")
    add("--short", type=int, default=128, help="context of the first training")
    add("--long", type=int, default=1024, help="context after it")
    add("--segments", type=int, nargs="+", help="default: short, long / 2, long")
    add("--rates", type=int, nargs="+", default=[1, 2, 4])
    add("--short-steps", type=int, default=150)
    add("--long-steps", type=int, default=60)
    add("--tokens", type=int, default=4096, help="tokens of a step, at either context")
    add("--hidden-size", type=int, default=96)
    add("--layers", type=int, default=2)
    add("--lr", type=float, default=2e-3)
    add("--seed", type=int, default=0)
    return parser.parse_args(arguments)


@dataclass(frozen=True)
class Losses:
    """Losses in nats per byte: of each step, and on held-out text before and after them."""

    training: list[float]
    before: float
    after: float
    seconds: float


def small_model(args: argparse.Namespace, device: torch.device) -> LlamaForCausalLM:
    """A Llama with grouped-query attention and positions up to the longer context."""
    torch.manual_seed(args.seed)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=args.hidden_size,
        intermediate_size=4 * args.hidden_size,
        num_hidden_layers=args.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=args.long,
    )
    return LlamaForCausalLM(config).to(device)


def batches(text: bytes, steps: int, length: int, tokens: int, seed: int) -> Tensor:
    """(steps, b, length) windows with about `tokens` tokens in each batch."""
    drawn = draw_batches(text, steps, max(1, tokens // length), length, seed)
    return torch.from_numpy(drawn.astype(np.int64))


def loss_of(model: LlamaForCausalLM, tokens: Tensor) -> Tensor:
    """The mean loss of the next byte."""
    loss = model(tokens, labels=tokens, use_cache=False).loss
    assert isinstance(loss, Tensor)
    return loss


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, held_out: Tensor) -> float:
    """The mean loss over batches that are never trained on."""
    model.eval()
    return float(torch.stack([loss_of(model, tokens) for tokens in held_out]).mean())


def train(name: str, model: LlamaForCausalLM, data: Tensor, held_out: Tensor, lr: float) -> Losses:
    """Train on all batches, one step each."""
    before = held_out_loss(model, held_out)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95))
    losses: list[float] = []
    start = time.perf_counter()
    for step, tokens in enumerate(data, start=1):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, step / 10)
        loss = loss_of(model, tokens)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        if step % 10 == 0:
            print(f"{name}: step {step} of {len(data)}, loss {losses[-1]:.3f}", flush=True)
    seconds = time.perf_counter() - start
    return Losses(losses, before, held_out_loss(model, held_out), seconds)


def draw(found: dict[str, Losses], path: Path) -> None:
    """The losses after the context has grown."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, losses in found.items():
        axes.plot(losses.training, label=f"{name}, held out at the end {losses.after:.3f}")
    axes.set(xlabel="step at the longer context", ylabel="loss (nats per byte)")
    axes.legend()
    figure.savefig(path)


def run(args: argparse.Namespace) -> dict[str, Losses]:
    """Train short, then long twice; returns the losses of the two long trainings."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    text = standard_library()
    cut = len(text) * 9 // 10
    segments = args.segments or [args.short, args.long // 2, args.long]
    short, long, held_short, held_long = (
        batches(part, steps, length, args.tokens, args.seed + i).to(device)
        for i, (part, steps, length) in enumerate(
            (
                (text[:cut], args.short_steps, args.short),
                (text[:cut], args.long_steps, args.long),
                (text[cut:], 4, args.short),
                (text[cut:], 4, args.long),
            )
        )
    )
    dense = small_model(args, device)
    train(f"dense, context {args.short}", dense, short, held_short, args.lr)
    dilated = copy.deepcopy(dense)
    use_dilated_attention(dilated, segments, args.rates)
    found = {
        name: train(f"{name}, context {args.long}", model, long, held_long, args.lr / 2)
        for name, model in (("dense", dense), ("dilated", dilated))
    }
    args.out.mkdir(parents=True, exist_ok=True)
    report = {name: asdict(losses) for name, losses in found.items()}
    (args.out / "losses.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    draw(found, args.out / "losses.svg")
    print(f"held out at context {args.long}:    before     after   seconds")
    for name, losses in found.items():
        print(f"{name:>28} {losses.before:9.3f} {losses.after:9.3f} {losses.seconds:9.1f}")
    return found


if __name__ == "__main__":
    run(parse(sys.argv[1:]))

"""Train a LongNet whose sequences a ring of devices holds and whose parameters all of them share.

    torchrun --nproc-per-node 8 examples/train_longnet.py --ring 4 --length 131072 --out runs/a

The ranks form a mesh (data, ring): a ring holds a sequence, and rings train on different ones.
Parameters, gradients and the optimizer's state are sharded over all ranks (FSDP2). A checkpoint
is saved every `--save-every` steps, after the last one, and on SIGTERM, after which every rank
ends with status 0 (torchrun, which passes the signal on, names it and ends with 1). Run again with
the same `--out`, on any number of ranks and any ring, it goes on where it stopped, on the same
batches.

Text is `--text`, or Python's own standard library; tokens are bytes. Needs the extra `cli`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import signal
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.stateful import Stateful
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import checkpoint

from dilated_attention_pytorch import DilationPattern, cost, positions, shard
from dilated_attention_pytorch.cli.text import draw_batches, standard_library
from dilated_attention_pytorch.models import (
    DecoderConfig,
    DilatedDecoderLM,
    next_token_loss,
    next_token_pairs,
)
from dilated_attention_pytorch.schedule import Problem

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
# Dense bfloat16 teraflops of one device, from its vendor's data sheet.
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0}


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of checkpoints, log and plot")
    add("--ring", type=int, default=1, help="ranks that hold a sequence; divides all ranks")
    add("--length", type=int, default=4096, help="tokens of a sequence")
    add("--batch", type=int, default=2, help="sequences of a step, over all rings")
    add("--steps", type=int, default=200)
    add("--segments", type=int, nargs="+", help="default: length / 16, length / 4, length")
    add("--rates", type=int, nargs="+", default=[1, 4, 8])
    add("--embed-dim", type=int, default=256)
    add("--heads", type=int, default=4)
    add("--layers", type=int, default=4)
    add("--order", choices=("contiguous", "zigzag"), default="zigzag")
    add("--lr", type=float, default=2e-3)
    add("--warmup", type=int, default=20)
    add("--clip", type=float, default=1.0, help="largest norm of the gradient")
    add("--dtype", choices=DTYPES, default="bfloat16", help="of parameters in use and activations")
    add("--activation-checkpointing", action=argparse.BooleanOptionalAction, default=True)
    add("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    add("--save-every", type=int, default=100)
    add("--log-every", type=int, default=1)
    add("--seed", type=int, default=0, help="of parameters and batches")
    add("--text", type=Path, help="a file to train on")
    add("--compare", type=Path, help="folder of another run to draw beside this one")
    add("--peak-tflops", type=float, help="of one device, for MFU")
    return parser.parse_args(arguments)


@dataclass(frozen=True)
class Place:
    """Where this process stands: its device, and the mesh (data, ring)."""

    device: torch.device
    mesh: DeviceMesh

    @property
    def first(self) -> bool:
        """Whether this rank prints and writes."""
        return dist.get_rank() == 0


def join(ring: int) -> Place:
    """Join the other ranks; NCCL where there are GPUs, else Gloo."""
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(kind, int(os.environ["LOCAL_RANK"]) if kind == "cuda" else None)
    if kind == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    world = dist.get_world_size()
    if ring < 1 or world % ring:
        raise SystemExit(f"--ring must divide the {world} ranks, got {ring}")
    return Place(
        device, init_device_mesh(kind, (world // ring, ring), mesh_dim_names=("data", "ring"))
    )


def build(args: argparse.Namespace, place: Place) -> DilatedDecoderLM:
    """The model, its blocks compiled and checkpointed as asked, its parameters sharded."""
    segments = args.segments or [max(1, args.length // 16), max(1, args.length // 4), args.length]
    torch.manual_seed(args.seed)
    config = DecoderConfig(
        DilationPattern.longnet(segments, args.rates),
        embed_dim=args.embed_dim,
        num_heads=args.heads,
        num_layers=args.layers,
        feed_forward_dim=4 * args.embed_dim,
    )
    model = DilatedDecoderLM(config).to(place.device)
    dtype = DTYPES[args.dtype]
    if dtype == torch.float64:
        model.double()
    # Parameters are kept, and gradients summed, in no less than float32.
    policy = MixedPrecisionPolicy(dtype, torch.promote_types(dtype, torch.float32))
    # One dimension for the parameters: the ranks of a ring need not hold copies of each other's.
    everybody = init_device_mesh(place.device.type, (dist.get_world_size(),))
    for block in model.blocks:
        forward: Any = block.forward
        if args.compile:
            forward = torch.compile(forward)
        if args.activation_checkpointing:
            forward = partial(checkpoint, forward, use_reentrant=False)
        block.forward = forward
        fully_shard(block, mesh=everybody, mp_policy=policy)
    fully_shard(model, mesh=everybody, mp_policy=policy)
    return model


class Batches:
    """Batches that depend on seed and step alone: a resumed run sees what it would have seen."""

    def __init__(self, args: argparse.Namespace, place: Place) -> None:
        self._args, self._place = args, place
        self._text = args.text.read_bytes() if args.text else standard_library()
        rings = place.mesh["data"].size()
        if args.batch % rings:
            raise SystemExit(f"--batch must be a multiple of the {rings} rings, got {args.batch}")
        self._per_ring = args.batch // rings

    def at(self, step: int) -> Tensor:
        """(b, n + 1) tokens of this rank's ring."""
        args = self._args
        seed = args.seed * 1_000_003 + step
        drawn = draw_batches(self._text, 1, args.batch, args.length + 1, seed)[0]
        first = self._place.mesh["data"].get_local_rank() * self._per_ring
        own = drawn[first : first + self._per_ring].astype(np.int64)
        return torch.from_numpy(own).to(self._place.device)


class Progress(Stateful):
    """Model, optimizer and number of steps done, as a checkpoint holds them."""

    def __init__(self, model: DilatedDecoderLM, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer, self.step = model, optimizer, 0

    def state_dict(self) -> dict[str, Any]:
        """What is saved."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what was saved."""
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
        self.step = state["step"]

    def save(self, out: Path) -> None:
        """Write a checkpoint; every rank its shards."""
        dcp.save({"progress": self}, checkpoint_id=out / f"checkpoint-{self.step:08}")

    def resume(self, out: Path) -> None:
        """Load the newest checkpoint that was finished, if there is one."""
        # The metadata are written last.
        finished = sorted(path.parent for path in out.glob("checkpoint-*/.metadata"))
        if finished:
            dcp.load({"progress": self}, checkpoint_id=finished[-1])


def train_step(
    args: argparse.Namespace, place: Place, progress: Progress, tokens: Tensor, count: int
) -> Tensor:
    """One step; this rank's share of the mean loss."""
    model, optimizer = progress.model, progress.optimizer
    ring = place.mesh["ring"]
    inputs, targets = next_token_pairs(tokens)
    rows = positions(inputs.shape[1], group=ring, order=args.order, device=place.device)
    own_inputs, own_targets = (shard(x, group=ring, order=args.order) for x in (inputs, targets))
    logits = model(own_inputs, rows, group=ring, order=args.order)
    wide = torch.promote_types(logits.dtype, torch.float32)
    loss = next_token_loss(logits.to(wide), own_targets, count=count)
    optimizer.zero_grad()
    # FSDP takes the mean over the ranks, and these are shares of one mean: they have to add up.
    (loss * dist.get_world_size()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(args, progress.step)
    optimizer.step()
    progress.step += 1
    return loss.detach()


def learning_rate(args: argparse.Namespace, step: int) -> float:
    """Linear warm-up, then a cosine to a tenth."""
    if step < args.warmup:
        return float(args.lr * (step + 1) / args.warmup)
    done = (step - args.warmup) / max(1, args.steps - args.warmup)
    return float(args.lr * (0.55 + 0.45 * math.cos(math.pi * done)))


def step_flops(args: argparse.Namespace, model: DilatedDecoderLM) -> float:
    """FLOPs that a step's mathematics needs, forward and backward; recomputation not counted."""
    config = model.config
    problem = Problem(config.pattern, args.length, config.num_heads, config.num_heads, True)
    attention = sum(
        cost.attention_flops(problem, args.batch, config.head_dim, backward=backward)
        for backward in (False, True)
    )
    parameters = sum(p.numel() for p in model.parameters())
    return 6.0 * parameters * args.batch * args.length + config.num_layers * attention


def peak_tflops(args: argparse.Namespace, device: torch.device) -> float | None:
    """Of one device; None where it is not known."""
    if args.peak_tflops or device.type != "cuda":
        return args.peak_tflops  # type: ignore[no-any-return]
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)


def peak_memory(device: torch.device) -> float:
    """GiB that this rank has held at once: of tensors on its GPU, or of its whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@dataclass(frozen=True)
class Entry:
    """What the log says of a step."""

    step: int
    ring: int
    ranks: int
    loss: float
    tokens_per_second: float
    mfu: float | None
    peak_memory_gib: float

    def __str__(self) -> str:
        """One line."""
        mfu = "" if self.mfu is None else f", MFU {self.mfu:.1%}"
        return (
            f"step {self.step}, loss {self.loss:.4f}, {self.tokens_per_second:,.0f} tokens/s{mfu}, "
            f"peak memory {self.peak_memory_gib:.2f} GiB"
        )


def read_log(out: Path) -> list[Entry]:
    """The entries of a run's log."""
    lines = (out / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [Entry(**json.loads(line)) for line in lines]


class Log:
    """One line of JSON for each step, cut back to the checkpoint that a run begins from."""

    def __init__(self, out: Path, step: int) -> None:
        self._file = out / "log.jsonl"
        self.entries = [e for e in read_log(out) if e.step <= step] if self._file.exists() else []
        lines = [json.dumps(asdict(entry)) + "\n" for entry in self.entries]
        self._file.write_text("".join(lines), encoding="utf-8")

    def add(self, entry: Entry) -> None:
        """Append an entry, at once on disk."""
        self.entries.append(entry)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry)) + "\n")

    def plot(self, path: Path, compared: Path | None) -> None:
        """The loss of each step; a colour for each ring size that the run has had."""
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        if compared is not None:
            other = read_log(compared)
            losses = [e.loss for e in other]
            axes.plot([e.step for e in other], losses, color="lightgrey", lw=6, label=compared.name)
        for ring in sorted({entry.ring for entry in self.entries}):
            own = [entry for entry in self.entries if entry.ring == ring]
            axes.plot([e.step for e in own], [e.loss for e in own], ".-", label=f"R = {ring}")
        axes.set(xlabel="step", ylabel="loss (nats per byte)")
        axes.legend()
        figure.savefig(path)


def run(args: argparse.Namespace) -> None:
    """Train until the last step or SIGTERM."""
    place = join(args.ring)
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    batches = Batches(args, place)
    model = build(args, place)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.95))
    progress = Progress(model, optimizer)
    progress.resume(args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    log = Log(args.out, progress.step) if place.first else None
    tokens_of_step, flops = args.batch * args.length, step_flops(args, model)
    peak, world = peak_tflops(args, place.device), dist.get_world_size()
    saved, stop = progress.step, False
    while progress.step < args.steps and not stop:
        start = time.perf_counter()
        tokens = batches.at(progress.step)
        share = train_step(args, place, progress, tokens, tokens_of_step)
        # One message: the mean loss, and whether a signal reached any rank, so that all stop alike.
        agreed = torch.stack((share.double(), share.new_tensor(len(stopping)).double()))
        dist.all_reduce(agreed)
        seconds = time.perf_counter() - start
        loss, stop = float(agreed[0]), bool(agreed[1] > 0)
        if log is not None:
            entry = Entry(
                progress.step,
                args.ring,
                world,
                loss,
                tokens_of_step / seconds,
                None if peak is None else flops / seconds / (peak * 1e12 * world),
                peak_memory(place.device),
            )
            log.add(entry)
            if progress.step % args.log_every == 0:
                left = (args.steps - progress.step) * seconds
                print(f"{entry}, {left / 60:.1f} min left", flush=True)
        if progress.step % args.save_every == 0 or stop:
            progress.save(args.out)
            saved = progress.step
    if saved < progress.step:
        progress.save(args.out)
    if log is not None:
        log.plot(args.out / "loss.svg", args.compare)
        reason = "stopped by SIGTERM" if stop else "done"
        print(f"{reason} after step {progress.step}; see {args.out}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    run(parse(sys.argv[1:]))

"""Inject faults into a ring of real processes and record what every rank reports.

`python -m benchmarks.faults` runs on Gloo (3 processes, no GPU), writes
benchmarks/results/faults_gloo.json and the table of docs/guides/many-gpus.md; one minute.
`--backend nccl` takes one GPU for each rank, or shares them where there are fewer, and writes
faults_nccl.json. A rank that only NCCL's watchdog ends has reported what the monitor logged before
that.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import platform
import re
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from dilated_attention_pytorch import DilationPattern
from dilated_attention_pytorch.comm.process_group import ProcessGroupCommunicator
from dilated_attention_pytorch.ring.agreement import FORWARD, agree

from . import fault_programs as programs
from .fault_programs import Member
from .fault_table import BACKENDS, render
from .memory_ladders import one_rank_of
from .sharing import SHARING, nccl_version

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
PAGE = ROOT / "docs/guides/many-gpus.md"
ODD = 1
PRICED_CALLS = 200
# Beyond the group's timeout: the time that a rank may take to say so, and to end.
GRACE_S = 20.0


@dataclass(frozen=True)
class Fault:
    """What happens on rank `ODD` (or `odd`) of a ring.

    Args:
        name: a row of the table.
        program: what every rank runs.
        odd: where it is injected.
        slower: factor on the group's timeout.
    """

    name: str
    program: Callable[[Member], Any]
    odd: int = ODD
    slower: float = 1.0


def _other(**change: Any) -> Callable[[Member], str]:
    return partial(programs.other_arguments, change=change)


def _ends(*arguments: Any) -> Callable[[Member], str]:
    return partial(_call_ends, arguments=arguments)


def _call_ends(member: Member, arguments: tuple[Any, ...]) -> str:
    return programs.ends(member, *arguments)


def _killed(label: str, way: str) -> list[Fault]:
    return [
        Fault(f"killed {when} an exchange, {way}", _ends("killed", label, when))
        for when in ("before", "during", "after")
    ]


FAULTS = (
    Fault("calls A, A where the others call A, B", programs.other_pattern_second),
    Fault("another pattern", _other(pattern=DilationPattern.longnet([8], [1]))),
    Fault("another dtype", _other(dtype=torch.float64)),
    Fault("another number of rows", _other(rows=programs.ROWS - 2)),
    Fault("another order of rows", _other(order="zigzag")),
    Fault("rows of another rank", programs.swapped_rows),
    Fault("a refused argument", _other(dropout_p=1.5)),
    Fault("forward where the others are in backward", programs.forward_instead_of_backward),
    Fault("one call less, process ends", partial(programs.one_call_less, lives=False)),
    Fault("one call less, process lives", partial(programs.one_call_less, lives=True)),
    Fault("killed between two steps", programs.killed_before_the_step),
    *_killed("key_value", "forward"),
    *_killed("gradient", "backward"),
    Fault("the first rank killed, forward", _ends("killed", "key_value"), odd=0),
    Fault("raises, forward", _ends("raises", "key_value")),
    Fault("raises, backward", _ends("raises", "gradient")),
    Fault("raises, its process lives", programs.raises_and_lives),
    Fault("slow, within the timeout", _ends("slow", "key_value", "during")),
    Fault("stuck", _ends("stuck", "key_value", "during")),
    Fault("stuck, timeout twice as long", _ends("stuck", "key_value", "during"), slower=2.0),
    Fault("frozen (SIGSTOP), backward", _ends("frozen", "gradient")),
    Fault("a NaN in its values", programs.not_a_number),
)


@dataclass(frozen=True)
class Start:
    """What every process is started with."""

    rank: int
    size: int
    backend: str
    port: int
    seconds: float
    odd: int
    log: str


def _live(end: Connection, start: Start, program: Callable[[Member], Any]) -> None:
    """One rank: warm up, live through the fault, tell of it, and end as a user's program does."""
    _print_to(start.log)
    torch.set_num_threads(1)
    device = torch.device("cpu")
    if start.backend == "nccl":
        device = torch.device("cuda", start.rank % torch.cuda.device_count())
        torch.cuda.set_device(device)

    def tell(kind: str, value: Any) -> None:
        end.send((kind, time.monotonic(), value))

    class _Tells(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tell("monitor", ("monitor", record.getMessage()))

    logging.getLogger("dilated_attention_pytorch").addHandler(_Tells())
    store = TCPStore("127.0.0.1", start.port, is_master=False)
    # Processes take their time to start; only the ring's own group has the short timeout.
    dist.init_process_group(
        start.backend,
        store=store,
        rank=start.rank,
        world_size=start.size,
        timeout=timedelta(seconds=120),
    )
    dist.barrier()
    group = dist.new_group(list(range(start.size)), timeout=timedelta(seconds=start.seconds))

    def happens() -> None:
        tell("fault", None)

    member = Member(group, start.rank, start.size, device, start.odd, start.seconds, happens)
    programs.warm_up(member)
    dist.barrier()
    try:
        tell("finished", program(member))
    except Exception as error:
        tell("raised", (type(error).__name__, str(error)))
        traceback.print_exc()
        # What an uncaught exception does, but for a message to the parent's terminal.
        os._exit(1)
    dist.destroy_process_group()


def _print_to(path: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for output in (1, 2):
        os.dup2(file, output)
    os.close(file)


@dataclass
class Told:
    """What the parent heard of one rank."""

    events: list[tuple[str, float, Any]] = field(default_factory=list)
    ended: float | None = None
    exit: int | str | None = None
    log: str = ""

    def of(self, *kinds: str) -> tuple[str, float, Any] | None:
        """The first event of these kinds."""
        return next((event for event in self.events if event[0] in kinds), None)


def live_through(
    size: int, backend: str, seconds: float, odd: int, program: Callable[[Member], Any]
) -> list[Told]:
    """Run a program on `size` new processes until each has ended, or has hung."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.fault_programs"])
    # The parent keeps the store, as torchrun's agent does.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    told = [Told() for _ in range(size)]
    with tempfile.TemporaryDirectory() as folder:
        ranks = []
        for rank in range(size):
            ours, theirs = context.Pipe()
            start = Start(rank, size, backend, store.port, seconds, odd, f"{folder}/{rank}.log")
            process = context.Process(target=_live, args=(theirs, start, program), daemon=True)
            process.start()
            theirs.close()
            ranks.append((process, ours))
        deadline = time.monotonic() + 3 * seconds + GRACE_S
        while any(one.ended is None for one in told) and time.monotonic() < deadline:
            wait(
                [p.sentinel for (p, _), one in zip(ranks, told, strict=True) if one.ended is None]
                + [end for _, end in ranks if not end.closed],
                0.1,
            )
            for one, (process, end) in zip(told, ranks, strict=True):
                _hear(one, end)
                if one.ended is None and process.exitcode is not None:
                    one.ended, one.exit = time.monotonic(), process.exitcode
        for one, (process, end) in zip(told, ranks, strict=True):
            _hear(one, end)
            if one.exit is None:
                one.exit = "stays"
                process.kill()
            process.join()
            end.close()
        for rank, one in enumerate(told):
            log = Path(folder, f"{rank}.log")
            one.log = log.read_text(errors="replace") if log.exists() else ""
    return told


def _hear(one: Told, end: Connection) -> None:
    try:
        while end.poll():
            one.events.append(end.recv())
    except (EOFError, OSError):
        return


def record(fault: Fault, size: int, backend: str, seconds: float) -> dict[str, Any]:
    """One row: what every rank reported, how long after the fault, and how its process ended."""
    limit = seconds * fault.slower
    told = live_through(size, backend, limit, fault.odd, fault.program)
    moment = told[fault.odd].of("fault")
    if moment is None:
        raise RuntimeError(f"{fault.name}: it did not happen; {told[fault.odd].log}")
    return {
        "fault": fault.name,
        "injected_on": fault.odd,
        "timeout_s": limit,
        "ranks": [_report(one, moment[1]) for one in told],
    }


def _report(one: Told, moment: float) -> dict[str, Any]:
    """What a rank said first, unless it finished, and what it raised after that."""
    warned, ended = one.of("monitor"), one.of("raised", "finished")
    event = ended
    if warned is not None and (ended is None or ended[0] == "raised"):
        event = min(warned, ended or warned, key=lambda x: x[1])
    found: dict[str, Any] = {"reported": None, "message": None, "seconds": None}
    if event is not None:
        kind, at, value = event
        name, text = ("finished", str(value)) if kind == "finished" else value
        found = {
            "reported": name,
            "message": _anonymous(text.splitlines()[0]),
            "seconds": round(max(0.0, at - moment), 2),
        }
    if ended is not None and event is not ended:
        found |= {"then": ended[2][0], "then_seconds": round(max(0.0, ended[1] - moment), 2)}
    return found | {"exit": one.exit}


def _anonymous(text: str) -> str:
    """Without what differs from run to run: addresses, ports, lines of others' sources."""
    return re.sub(r"\[[^\]\s]*\d+\.\d+\.\d+\.\d+\]:\d+", "[address]", text)[:400]


def price(size: int, backend: str, seconds: float) -> dict[str, Any]:
    """Microseconds of an agreement and of its parts: the median, of the slowest rank."""
    program = partial(programs.agreement_price, calls=PRICED_CALLS)
    told = live_through(size, backend, 10 * seconds, 0, program)
    events = [one.of("finished") for one in told]
    ranks = [event[2] for event in events if event is not None]
    if len(ranks) != size:
        raise RuntimeError("".join(one.log for one in told))
    return {"ring_size": size, "calls": PRICED_CALLS} | {
        f"{name}_us": round(max(statistics.median(rank[name]) for rank in ranks) * 1e6, 1)
        for name in ranks[0]
    }


def price_alone() -> float:
    """Microseconds of an agreement in a process that waits for nobody: what it computes itself."""
    seconds = []
    with one_rank_of(2, 0) as group:
        comm = ProcessGroupCommunicator(group)
        for _ in range(10 * PRICED_CALLS):
            start = time.perf_counter()
            agree(comm, {"operation": FORWARD})
            seconds.append(time.perf_counter() - start)
    return round(statistics.median(seconds) * 1e6, 1)


def path_of(backend: str) -> Path:
    """Where a backend's results lie."""
    return RESULTS / f"faults_{backend}.json"


def load() -> dict[str, dict[str, Any] | None]:
    """The committed results by backend, None where there are none."""
    return {
        backend: json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        for backend in BACKENDS
        for path in [path_of(backend)]
    }


def _gpus() -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name(),
        "devices": torch.cuda.device_count(),
        "nccl": nccl_version(),
    }


def main() -> None:
    """Inject, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, default="gloo")
    parser.add_argument("--ranks", type=int, help="3 on Gloo, 2 on NCCL")
    parser.add_argument("--timeout", type=float, help="the group's: 4 s on Gloo, 12 s on NCCL")
    parser.add_argument("--fault", action="append", help="only these; the others stay as they are")
    parser.add_argument("--jobs", type=int, default=1, help="faults at the same time")
    arguments = parser.parse_args()
    on_gpu = arguments.backend == "nccl"
    size = arguments.ranks or (2 if on_gpu else 3)
    seconds = arguments.timeout or (12.0 if on_gpu else 4.0)
    if on_gpu:
        os.environ |= SHARING

    def live(fault: Fault) -> dict[str, Any]:
        row = record(fault, size, arguments.backend, seconds)
        print(json.dumps(row, indent=1), flush=True)
        return row

    chosen = [fault for fault in FAULTS if fault.name in (arguments.fault or [fault.name])]
    with ThreadPoolExecutor(arguments.jobs) as threads:
        found = {row["fault"]: row for row in threads.map(live, chosen)}
    sizes = (2,) if on_gpu else (2, 4)
    if on_gpu and torch.cuda.device_count() < size:
        # Ranks that take turns on a GPU wait for their turn.
        sizes = ()
    report = {
        "backend": arguments.backend,
        "ring_size": size,
        "timeout_s": seconds,
        "environment": {"torch": torch.__version__, "python": platform.python_version()}
        | (_gpus() if on_gpu else {"cpus": os.cpu_count()}),
    }
    before = load()[arguments.backend]
    if arguments.fault and (before is None or any(before[key] != report[key] for key in report)):
        raise SystemExit("the results are of another run; inject all faults")
    if arguments.fault and before is not None:
        found = {row["fault"]: row for row in before["faults"]} | found
        report |= {key: before[key] for key in ("agreement", "agreement_alone_us")}
    else:
        report |= {
            "agreement": [price(ring, arguments.backend, seconds) for ring in sizes],
            "agreement_alone_us": price_alone(),
        }
    report["faults"] = [found[fault.name] for fault in FAULTS if fault.name in found]
    path_of(arguments.backend).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), load()), encoding="utf-8")


if __name__ == "__main__":
    main()

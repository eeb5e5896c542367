"""`dilated-attention bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from dilated_attention_oracle import tolerance

from ..bench import summary
from ..bench.cases import CASES, Case, choose
from ..bench.machine import find_machine
from ..bench.peers import PEERS
from ..bench.report import faults, load, run_cases, save
from ..bench.timing import QUICK, Effort

_LEGEND = (
    "ms: median; ±: half of the 20th to 80th percentile; TFLOP/s: of 4 d pairs forward, 2.5 times "
    "that backward; time: over that of auto; MiB: peak beyond inputs, out and gradients; host: "
    "until the call returns; error: share of the tolerance."
)


def bench(
    case: Annotated[list[str] | None, typer.Option(help="A case to time; see --list.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="A group of cases to time.")] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="A backend to time; all that serve where not given.")
    ] = None,
    peers: Annotated[bool, typer.Option(help="Time what PyTorch itself offers as well.")] = True,
    quick: Annotated[bool, typer.Option(help="Short runs: coarse figures, soon.")] = False,
    output: Annotated[Path, typer.Option(help="The JSON file to write.")] = Path(
        "dilated-attention-bench.json"
    ),
    append: Annotated[
        bool, typer.Option(help="Keep the other cases of the file, if made on this very machine.")
    ] = False,
    list_cases: Annotated[bool, typer.Option("--list", help="Print the cases and end.")] = False,
) -> None:
    """Time the backends on this machine, each checked on the very shapes first.

    Without --case and --group: every case for a GPU where there is one, small ones on the CPU.
    Sampled rows of out, lse and the gradients are compared with the definition in float64; what is
    outside the tolerance is reported and not timed, and the command exits with 1.
    """
    console = Console()
    if list_cases:
        console.print(_cases())
        raise typer.Exit(0)
    if not output.absolute().parent.is_dir():
        raise typer.BadParameter(f"no folder {output.absolute().parent}", param_hint="--output")
    machine = find_machine()
    try:
        chosen = choose(case or (), group or (), machine.device)
        old = load(output) if append and output.exists() else None
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="--case, --group, --output") from None

    def write(report: dict[str, Any]) -> None:
        save(report, output)

    def announce(case: Case) -> None:
        console.print(f"{chosen.index(case) + 1}/{len(chosen)} {case.name}: {case}", style="dim")

    try:
        report = run_cases(
            chosen,
            machine,
            tolerance,
            peers=PEERS if peers else {},
            effort=QUICK if quick else Effort(),
            backend_names=backend or (),
            old=old,
            before=announce,
            after=write,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--backend, --append") from None
    except KeyboardInterrupt:
        console.print(f"interrupted; finished cases are in {output}")
        raise typer.Exit(130) from None
    timed = {one.name for one in chosen}
    for result in report["results"]:
        if result["case"] in timed:
            _print(result, console)
    console.print(_LEGEND)
    console.print(f"written: {output}", soft_wrap=True)
    wrong = faults(report)
    for line in wrong:
        console.print(line, style="bold red", markup=False)
    raise typer.Exit(1 if wrong else 0)


def _cases() -> Table:
    table = Table("group", "case", "n", "H", "d", "dtype", "(w, r)")
    for case in CASES:
        pairs = ((b.segment_length, b.dilation_rate) for b in case.pattern.branches)
        branches = " ".join(f"({w}, {r})" for w, r in pairs)
        numbers = (f"{case.n:,}", str(case.heads), str(case.head_dim), case.dtype_name)
        table.add_row(case.group, case.name, *numbers, branches)
    return table


def _print(result: dict[str, Any], console: Console) -> None:
    heading, rows, notes = summary.implementations(result)
    table = Table(*heading, title=result["case"], box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in table.columns[2:]:
        column.justify = "right"
    last = None
    for name, *cells in rows:
        table.add_row("" if name == last else name, *cells)
        last = name
    console.print(table)
    for note in notes:
        console.print(note, style="dim", markup=False)

"""Tables of a report, as rows of text; who prints them chooses the form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Row = tuple[str, ...]
Entry = Mapping[str, Any]

KINDS: Final = ("forward", "forward_backward")
# Names in a table. dense_same_flops does a whole number of sequences, so that its FLOPs are near
# the case's and not equal: it is compared by its rate.
PEERS: Final = {
    "torchscale": "torchscale",
    "strided": "strided cuDNN, unmixed",
    "dense_same_n": "dense, same n",
    "dense_same_flops": "dense, same FLOPs",
    "flex": "FlexAttention",
}
_SAME_FLOPS: Final = "dense_same_flops"
_PASSES: Final = {"forward": "fwd", "forward_backward": "fwd+bwd"}
_NOTHING: Final = "–"


def implementations(result: Entry) -> tuple[Row, list[Row], list[str]]:
    """Of one case: heading, a row for each figure, and why other implementations have none.

    Columns that no implementation fills are left out.
    """
    heading = ("", "pass", "ms", "±", "TFLOP/s", "time", "MiB", "launches", "host µs", "error")
    rows, notes = [], []
    auto = auto_entry(result)
    for name, entry in (*result["backends"].items(), *result["peers"].items()):
        if "forward" not in entry:
            kind = next(kind for kind in ("absent", "wrong", "failed") if kind in entry)
            notes.append(f"{name} {kind}: {entry[kind]}")
        label = f"{name} (auto)" if name == result["auto"] else name
        for kind in KINDS:
            if kind not in entry:
                continue
            one = {kind: entry[kind]}
            rows.append(
                (
                    label,
                    _PASSES[kind],
                    _pair(one, "ms", _milliseconds),
                    _pair(one, "spread", "{:.1%}".format),
                    _pair(one, "tflops", "{:.3g}".format),
                    ratio(one, auto, by_rate=name == _SAME_FLOPS),
                    _pair(one, "extra_mib", _whole),
                    _pair(one, "launches", "{}".format),
                    _pair(one, "host_us", "{:,.0f}".format),
                    _share(entry),
                )
            )
    used = [i for i in range(len(heading)) if any(row[i] != _NOTHING for row in rows)]

    def narrow(row: Row) -> Row:
        return tuple(row[i] for i in used)

    return narrow(heading), [narrow(row) for row in rows], notes


def by_case(report: Mapping[str, Any]) -> tuple[Row, list[Row]]:
    """Heading and one row for each case: what `auto` costs, and its peers' time over its own."""
    heading = ("case", "auto", "ms", "TFLOP/s", *PEERS.values())
    rows = []
    for result in report["results"]:
        auto = auto_entry(result)
        rows.append(
            (
                result["case"],
                result["auto"],
                _pair(auto, "ms", _milliseconds),
                _pair(auto, "tflops", "{:.0f}".format),
                *(
                    ratio(result["peers"].get(name, {}), auto, by_rate=name == _SAME_FLOPS)
                    for name in PEERS
                ),
            )
        )
    return heading, rows


def by_backend(report: Mapping[str, Any]) -> tuple[Row, list[Row]]:
    """Heading and one row for each case and backend that was timed."""
    heading = (
        *("case", "backend", "ms", "TFLOP/s", "executed", "extra MiB", "launches", "host µs"),
        *("W", "MHz", "error / budget"),
    )
    rows: list[Row] = [
        (
            result["case"],
            f"**{name}**" if name == result["auto"] else name,
            _pair(entry, "ms", _milliseconds),
            _pair(entry, "tflops", "{:.0f}".format),
            _pair(entry, "executed_tflops", "{:.0f}".format),
            _pair(entry, "extra_mib", _whole),
            _pair(entry, "launches", "{}".format),
            _pair(entry, "host_us", "{:,.0f}".format),
            _pair(entry, "power_w", "{:.0f}".format),
            _pair(entry, "sm_mhz", "{:.0f}".format),
            _share(entry),
        )
        for result in report["results"]
        for name, entry in result["backends"].items()
        if "forward" in entry
    ]
    return heading, rows


def memory(report: Mapping[str, Any]) -> tuple[Row, list[Row]]:
    """Heading and one row for each case that a peer ran: MiB beyond inputs, out and gradients."""
    names = ("torchscale", "dense_same_n")
    heading = ("case", "auto", *(PEERS[name] for name in names))
    rows = []
    for result in report["results"]:
        entries = [auto_entry(result), *(result["peers"].get(name, {}) for name in names)]
        cells = [_pair(entry, "extra_mib", _whole) for entry in entries]
        if any(cell != _NOTHING for cell in cells[1:]):
            rows.append((result["case"], *cells))
    return heading, rows


def auto_entry(result: Entry) -> Entry:
    """The entry of the backend that `auto` takes; empty where this run left it out."""
    found: Entry = result["backends"].get(result["auto"], {})
    return found


def ratio(entry: Entry, auto: Entry, *, by_rate: bool = False) -> str:
    """An entry's time over auto's, forward / forward + backward: above 1 the entry is slower.

    `by_rate`: of times for equal FLOPs.
    """
    found = []
    for kind in KINDS:
        if kind in entry and kind in auto:
            theirs, ours = entry[kind], auto[kind]
            by_time = theirs["ms"] / ours["ms"]
            found.append(f"{ours['tflops'] / theirs['tflops'] if by_rate else by_time:.2f}")
    return " / ".join(found) or _NOTHING


def _pair(entry: Entry, name: str, form: Any) -> str:
    """A figure's number, forward / forward + backward."""
    figures = [entry[kind] for kind in KINDS if kind in entry]
    if name == "spread":
        figures = [{name: (x["ms_p80"] - x["ms_p20"]) / 2 / x["ms"]} for x in figures]
    return " / ".join(form(x[name]) for x in figures if name in x) or _NOTHING


def _milliseconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _whole(value: float) -> str:
    return f"{round(value):,}"


def _share(entry: Entry) -> str:
    """The largest share of the tolerance that an array used."""
    shares = entry.get("share_of_budget")
    return f"{max(shares.values()):.2f}" if shares else _NOTHING

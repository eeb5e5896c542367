"""A plan's picture: memory and time of a rank over the ring size."""

from __future__ import annotations

from pathlib import Path

from ..plan import Plan


def draw(plan: Plan, path: Path) -> None:
    """Write a PNG of memory per rank beside the GPU's, and of a step's parts, over R.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the message says how to get it.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the picture needs matplotlib, which is not installed: pip install matplotlib, or "
            "install dilated-attention-pytorch with its extra [cli]"
        ) from error
    timed = [ring for ring in plan.rings if ring.step is not None]
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, 2 if timed else 1, squeeze=False)[0]
    held, sizes = panels[0], [ring.ring_size for ring in plan.rings]
    for direction, style in (("forward", "o--"), ("backward", "o-")):
        gigabytes = [getattr(ring.memory, direction) / 1e9 for ring in plan.rings]
        held.plot(sizes, gigabytes, style, label=direction)
    held.axhline(plan.gpu.memory / 1e9, color="black", linestyle=":", label=plan.gpu.name)
    held.set(title="Peak attention memory of a rank", ylabel="GB", yscale="log")
    held.legend()
    if timed:
        taken = panels[1]
        for label, style, parts in (
            ("forward", "o--", [one.step.forward for one in timed if one.step]),
            ("backward", "o--", [one.step.backward for one in timed if one.step]),
            ("step, with waiting for rows", "k-", [one.step.total for one in timed if one.step]),
        ):
            taken.plot(
                [ring.ring_size for ring in timed], [x * 1e3 for x in parts], style, label=label
            )
        least = any(one.step.is_bound for one in timed if one.step)
        title = "Time of a step (R > 1: at least)" if least else "Time of a step"
        taken.set(title=title, ylabel="ms", yscale="log")
        taken.legend()
    for panel in panels:
        panel.set_xscale("log", base=2)
        # Ring sizes double: more than ten of them stand too close to be written along the axis.
        panel.set_xticks(
            sizes, [f"{size:,}" for size in sizes], rotation=45 if len(sizes) > 10 else 0
        )
        panel.axvline(plan.ring.ring_size, color="grey", alpha=0.25, linewidth=6, zorder=0)
        panel.set(xlabel="ring size R")
        panel.grid(alpha=0.3)
    call = plan.call
    figure.suptitle(
        f"n = {call.n:,}, b = {call.batch}, H = {call.num_heads}, d = {call.head_dim}, {call.dtype}"
    )
    figure.savefig(path, dpi=120, format="png")

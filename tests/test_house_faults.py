"""The fault tables of the pages are those of the committed results, and say what is promised."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from benchmarks import fault_table, faults

REPORTS = faults.load()
GLOO: dict[str, Any] = REPORTS["gloo"] or {}
ROWS = {row["fault"]: row for row in GLOO["faults"]}
DISAGREE = tuple(name for name in ROWS if name.startswith(("calls A, A", "another", "forward i")))


def page() -> str:
    return faults.PAGE.read_text(encoding="utf-8")


def test_the_page_is_that_of_the_results() -> None:
    assert fault_table.render(page(), REPORTS) == page(), "run python -m benchmarks.faults"
    drifted = copy.deepcopy(REPORTS)
    assert drifted["gloo"] is not None
    drifted["gloo"]["faults"][0]["ranks"][0]["reported"] = "nothing"
    assert fault_table.render(page(), drifted) != page()
    drifted = copy.deepcopy(REPORTS)
    assert drifted["gloo"] is not None
    drifted["gloo"]["agreement"][0]["agreement_us"] += 10
    assert fault_table.render(page(), drifted) != page()
    with pytest.raises(ValueError, match="the page needs one <!-- faults-gloo -->"):
        fault_table.render(page().replace("<!-- faults-gloo -->", ""), REPORTS)


def test_the_results_are_of_the_faults_of_today() -> None:
    assert list(ROWS) == [fault.name for fault in faults.FAULTS]


@pytest.mark.parametrize("name", ROWS)
def test_every_rank_told_of_the_fault_in_time_and_ended(name: str) -> None:
    row = ROWS[name]
    for rank, found in enumerate(row["ranks"]):
        if rank == row["injected_on"]:
            assert found["exit"] != "stays" or "frozen" in name
            continue
        assert found["reported"] is not None
        assert found["seconds"] <= row["timeout_s"] + 1.0
        assert found["exit"] == (0 if found["reported"] == "finished" else 1)


@pytest.mark.parametrize("name", DISAGREE)
def test_a_disagreement_is_told_at_once_by_every_rank(name: str) -> None:
    for found in ROWS[name]["ranks"]:
        assert found["reported"] in ("RankDisagreementError", "ValueError")
        assert found["seconds"] < 1.0


@pytest.mark.parametrize("name", [name for name in ROWS if "killed" in name or "stuck" in name])
def test_who_waits_in_vain_names_step_and_peer(name: str) -> None:
    row = ROWS[name]
    odd = row["injected_on"]
    for rank, found in enumerate(row["ranks"]):
        if rank != odd:
            assert found["reported"] == "PeerError"
            assert found["message"].startswith(f"rank {rank}, step ")
            assert f"rank {odd}" in found["message"]


def test_timeouts_are_the_groups() -> None:
    for name in ("stuck", "stuck, timeout twice as long"):
        row = ROWS[name]
        seconds = [r["seconds"] for i, r in enumerate(row["ranks"]) if i != row["injected_on"]]
        assert all(row["timeout_s"] * 0.9 < s < row["timeout_s"] + 1 for s in seconds)


def test_a_nan_is_seen_by_the_rows_that_see_it() -> None:
    for found in ROWS["a NaN in its values"]["ranks"]:
        counted, _, expected = found["message"].partition(" rows of out not finite, ")
        assert expected.startswith(f"{counted} ")


NCCL: dict[str, Any] = REPORTS["nccl"] or {}
NCCL_ROWS = {row["fault"]: row for row in NCCL["faults"]}
LATE = ("killed", "raises", "the first", "one call", "stuck", "frozen")
LOST = [name for name in NCCL_ROWS if name.startswith(LATE)]
# The step's last exchange: it may be over when the process is killed, and nobody misses anything.
LAST = ("killed during an exchange, backward", "killed after an exchange, backward")
DONE = ("slow, within the timeout", "a NaN in its values")


def test_what_did_not_run_over_nccl_is_named() -> None:
    missing = [name for name in ROWS if name not in NCCL_ROWS]
    assert ("Not run: " + "; ".join(missing) in page()) == bool(missing)
    assert set(NCCL_ROWS) <= set(ROWS)


@pytest.mark.parametrize("name", [name for name in NCCL_ROWS if name not in (*LOST, *DONE)])
def test_over_nccl_a_wrong_call_raises_on_every_rank(name: str) -> None:
    kinds = ("RankDisagreementError", "ValueError", "PeerError")
    for found in NCCL_ROWS[name]["ranks"]:
        assert found["reported"] in kinds
        assert found["seconds"] < 1.0
        assert found["exit"] == 1


@pytest.mark.parametrize("name", LOST)
def test_over_nccl_step_and_peer_are_named_before_the_watchdog_acts(name: str) -> None:
    row = NCCL_ROWS[name]
    odd = row["injected_on"]
    for rank, found in enumerate(row["ranks"]):
        if rank != odd:
            if name in LAST and found["reported"] == "finished":
                continue
            assert found["reported"] == "monitor"
            assert found["message"].startswith(f"rank {rank}, step ")
            assert f"rank {odd}" in found["message"]
            assert row["timeout_s"] / 2 <= found["seconds"] < row["timeout_s"]


@pytest.mark.parametrize("name", LOST)
def test_over_nccl_no_process_stays_that_waits_for_a_peer(name: str) -> None:
    row = NCCL_ROWS[name]
    for rank, found in enumerate(row["ranks"]):
        if rank != row["injected_on"] and found["reported"] == "monitor":
            assert found["exit"] == 1


@pytest.mark.parametrize("name", [name for name in DONE if name in NCCL_ROWS])
def test_over_nccl_these_finish(name: str) -> None:
    for found in NCCL_ROWS[name]["ranks"]:
        assert found["reported"] == "finished"
        assert found["exit"] == 0
        numbers = re.findall(r"\d+", found["message"])
        assert len(set(numbers)) <= 1, "a NaN reaches the rows that see it and no others"

"""The kit has to reject every planted fault, by the test that was written for it."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import dilated_attention_oracle

META = Path(__file__).parent
PACKAGE = Path(dilated_attention_oracle.__file__).parent
KIT = PACKAGE / "conformance"
# The test that has to reject each fault, and whether lse alone shows it.
REJECTED_BY: dict[str, tuple[str, bool]] = {
    "unmasked_pad_key": ("test_forward.py::TestForward::test_short_segment_is_not_padded", True),
    "partial_normalised_per_chunk": (
        "test_forward.py::TestForward::test_last_token_of_an_odd_length_is_attended",
        False,
    ),
    "dropped_rescale": (
        "test_forward.py::TestForward::test_branches_are_mixed_by_their_denominators",
        False,
    ),
    "residue_off_by_one": (
        "test_forward.py::TestForward::test_every_residue_selects_its_own_tokens",
        True,
    ),
    "lost_last_segment": ("test_forward.py::TestForward::test_last_segment_is_attended", True),
    "own_chunk_counted_twice": (
        "test_sharding.py::TestSharding::test_each_rank_counts_its_own_keys_once",
        True,
    ),
    "stale_receive_buffer": (
        "test_sharding.py::TestSharding::test_backward_uses_the_rows_of_its_step",
        False,
    ),
    "last_dropout_seed_reused": (
        "test_sharding.py::TestSharding::test_dropout_is_that_of_one_process",
        False,
    ),
    "empty_partial_gives_nan": (
        "test_merging.py::TestMerging::test_empty_part_is_the_identity",
        False,
    ),
    "last_token_of_odd_length_dropped": (
        "test_forward.py::TestForward::test_last_token_of_an_odd_length_is_attended",
        True,
    ),
    "all_gather": ("test_sharding.py::TestSharding::test_only_needed_rows_travel", False),
    "mask_ignored": ("test_errors.py::TestErrors::test_unsupported_raises", False),
    "mask_inverted": ("test_masking.py::TestMasking::test_true_means_attend", True),
    "lse_in_base_two": (
        "test_forward.py::TestForward::test_branches_are_mixed_by_their_denominators",
        True,
    ),
    "different_bits_per_run": (
        "test_determinism.py::TestDeterminism::test_ring_size_changes_no_bit",
        False,
    ),
}
# Rounding to bfloat16 hides the order of a sum.
FAULTS = [f"exact.{name}" for name in REJECTED_BY]
FAULTS += [f"half.{name}" for name in REJECTED_BY if name != "different_bits_per_run"]
Failures = dict[tuple[str, str], str]


def run_kit(
    folder: Path, implementations: list[str], selected: dict[str, str]
) -> tuple[int, Failures]:
    """Run the kit, or of it the test selected for each fault and all of these on the unbroken one.

    Returns the number of tests, and the message by (implementation, test) of those that failed.
    """
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    report = folder / "report.xml"
    plugins = ("no:cacheprovider", "quick_profile", "dilated_attention_oracle.conformance.plugin")
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(folder / "pytest.ini")]
    command += [f"-p{plugin}" for plugin in plugins]
    command += [f"--rootdir={folder}", f"--confcutdir={KIT}", f"--junitxml={report}"]
    command += [f"--attention-impl=planted_faults:{name}" for name in implementations]
    command += sorted({str(KIT / test) for test in selected.values()})
    if selected:
        chosen = [f"({name} and {test.rpartition('::')[2]})" for name, test in selected.items()]
        command += ["-k", " or ".join([*chosen, "unbroken"])]
    paths = [str(META), str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert report.exists(), done.stdout + done.stderr
    cases = list(ElementTree.parse(report).iter("testcase"))
    failures = {}
    for case in cases:
        for kind in ("failure", "error"):
            for problem in case.iter(kind):
                test, _, rest = case.get("name", "").partition("[planted_faults:")
                implementation = rest.rstrip("]").partition("-")[0]
                failures[implementation, test] = problem.get("message", "")
    return len(cases), failures


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> Failures:
    """What the chosen tests say about every fault, and about the unbroken implementation."""
    selected = {name: REJECTED_BY[name.partition(".")[2]][0] for name in FAULTS}
    implementations = ["exact.unbroken", "half.unbroken", *FAULTS]
    return run_kit(tmp_path_factory.mktemp("faults"), implementations, selected)[1]


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_rejected_by_name(failures: Failures, name: str) -> None:
    test, shows_in_lse = REJECTED_BY[name.partition(".")[2]]
    message = failures.get((name, test.rpartition("::")[2]))
    assert message is not None, f"{test} accepts {name}"
    assert ("lse" in message.partition(":")[2][:6]) == shows_in_lse, message


@pytest.mark.parametrize("kind", ["exact", "half"])
def test_unbroken_implementation_passes_where_faults_fail(failures: Failures, kind: str) -> None:
    assert [test for implementation, test in failures if implementation == f"{kind}.unbroken"] == []


def test_unbroken_implementation_passes_the_whole_kit(tmp_path: Path) -> None:
    ran, failures = run_kit(tmp_path, ["exact.unbroken"], {})
    assert failures == {}
    assert ran > 100

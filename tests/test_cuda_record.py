"""Kernels that only a GPU can run were run on one since they last changed, or are said to wait."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import gpu_record
from support.run_notes import NOTES


def test_every_kernel_has_a_fresh_record_or_is_said_to_wait() -> None:
    stale = gpu_record.stale()
    waiting = gpu_record.pending()
    hashes = {name: gpu_record.source_hash(name) for name in gpu_record.FILES}
    unsaid = [line for line in stale if line.split()[0] not in waiting]
    assert unsaid == [], (
        "no fresh GPU record; on a machine with a GPU run pytest -m cuda with "
        "DILATED_ATTENTION_RECORD=benchmarks/results/cuda_correctness.json and commit the file, or "
        f"say in {gpu_record.PENDING.name} what was checked of {hashes}"
    )
    for name, entry in waiting.items():
        NOTES.note("no full GPU record of the present kernels", f"{name}: {entry['checked']}")
    record = json.loads(gpu_record.RECORD.read_text(encoding="utf-8"))
    for test in record.get("unfinished", []):
        NOTES.note("not passed in the GPU record", test)


def test_what_is_said_to_wait_does() -> None:
    """An entry for another version, or for one that has its record, is out of date."""
    said = json.loads(gpu_record.PENDING.read_text(encoding="utf-8"))
    stale = {line.split()[0] for line in gpu_record.stale()}
    assert set(said) == set(gpu_record.pending())
    assert set(said) <= stale


def test_a_changed_kernel_makes_its_record_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = {
        backend: {dtype: dict.fromkeys(gpu_record.DIRECTIONS, 0.5) for dtype in dtypes}
        for backend, dtypes in gpu_record.DTYPES.items()
    }
    record = {
        "backends": {
            backend: {
                "hash": gpu_record.source_hash(backend),
                "largest_share_of_budget": found,
            }
            for backend, found in shares.items()
        }
    }
    monkeypatch.setattr(gpu_record, "RECORD", tmp_path / "record.json")
    gpu_record.RECORD.write_text(json.dumps(record), encoding="utf-8")
    assert gpu_record.stale() == []
    record["backends"]["triton"]["hash"] = "another"
    del shares["eager"]["float16"]["backward"]
    gpu_record.RECORD.write_text(json.dumps(record), encoding="utf-8")
    assert gpu_record.stale() == [
        "eager float16 backward",
        *(f"triton {d} {x}" for d in gpu_record.DTYPES["triton"] for x in gpu_record.DIRECTIONS),
    ]


def test_a_changed_kernel_no_longer_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_record, "PENDING", tmp_path / "pending.json")
    entry = {"hash": gpu_record.source_hash("eager"), "checked": "nothing"}
    gpu_record.PENDING.write_text(json.dumps({"eager": entry}), encoding="utf-8")
    assert set(gpu_record.pending()) == {"eager"}
    entry["hash"] = "another"
    gpu_record.PENDING.write_text(json.dumps({"eager": entry}), encoding="utf-8")
    assert gpu_record.pending() == {}


def test_words_about_the_code_are_no_part_of_it() -> None:
    """Comments and docstrings may be mended without a GPU; a statement may not."""
    text = '"""A."""\n\ndef f(x):  # why\n    """B."""\n    return x + 1\n'
    mended = "def f(x):\n    '''Another,\n    longer.'''\n    # because\n    return x + 1\n"
    assert gpu_record.code_of(text) == gpu_record.code_of(mended) == "0:deff(x):\n1:returnx+1"
    assert gpu_record.code_of(text.replace("1", "2")) != gpu_record.code_of(text)
    assert "#" in gpu_record.code_of('x = "# no comment"\n')


def test_how_code_is_laid_out_is_no_part_of_it() -> None:
    text = "for i in f(a, b):\n    g(i)\n    h(i)\n"
    wrapped = "for i in f(\n    a,\n    b,\n):\n    g(i)\n\n    h(i)\n"
    assert gpu_record.code_of(wrapped) == gpu_record.code_of(text)
    assert gpu_record.code_of(text.replace("    h", "h")) != gpu_record.code_of(text)

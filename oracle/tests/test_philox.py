from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dilated_attention_oracle import Pattern, forward
from dilated_attention_oracle.philox import dropout_factor, keep_mask, philox4x32

PINNED = ["001110110111", "111110011000", "110000110100", "101100011001"]
# The known answers published with Random123 (kat_vectors, philox4x32 10).
KNOWN_ANSWERS = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(counter: str, key: str, answer: str) -> None:
    low, high = words(key)
    found = philox4x32(np.array([words(counter)], dtype=np.uint64), (low, high))
    assert found.dtype == np.uint32
    assert found[0].tolist() == words(answer)


@pytest.mark.parametrize(
    ("position", "rank", "batch_head", "branch", "seed", "word"),
    [
        # Seed 0, everything 0: the four words of the first known answer are the first four keys.
        (0, 0, 0, 0, 0, 0x6627E8D5),
        (0, 1, 0, 0, 0, 0xE169C58D),
        (0, 2, 0, 0, 0, 0xBC57AC4C),
        (0, 3, 0, 0, 0, 0x9B00DBD8),
        # The third known answer, read back into global indices.
        (
            0x243F6A88 + (0x7344 << 32),
            0x85A308D3 * 4 + 2,
            0x13198A2E,
            0x0370,
            0x299F31D0A4093822,
            0x5001E420,
        ),
    ],
)
def test_a_word_decides_its_entry(
    position: int, rank: int, batch_head: int, branch: int, seed: int, word: int
) -> None:
    kept, dropped = (
        bool(keep_mask(position, rank, batch_head, branch, threshold / 2**32, seed))
        for threshold in (word, word + 1)
    )
    assert kept
    assert not dropped


def test_pinned_keep_mask() -> None:
    mask = keep_mask(np.arange(4)[:, None], np.arange(12), 3, 1, 0.5, -(2**40) + 7)
    packed = ["".join("01"[int(kept)] for kept in row) for row in mask]
    assert packed == PINNED


def test_signed_and_unsigned_seeds_are_the_same_bits() -> None:
    grid = (np.arange(50)[:, None], np.arange(20), 0, 0, 0.5)
    assert np.array_equal(keep_mask(*grid, -1), keep_mask(*grid, 2**64 - 1))
    assert not np.array_equal(keep_mask(*grid, -1), keep_mask(*grid, 2**32 - 1))


@pytest.mark.parametrize("changed", range(4))
def test_every_index_matters(changed: int) -> None:
    plain: list[Any] = [np.arange(40)[:, None], np.arange(20), 0, 0]
    other = [index + 2**20 * (place == changed) for place, index in enumerate(plain)]
    first, second = (keep_mask(p, t, bh, i, 0.5, 9) for p, t, bh, i in (plain, other))
    assert not np.array_equal(first, second)


def test_nothing_and_everything_is_kept() -> None:
    grid = (np.arange(50)[:, None], np.arange(20), 0, 0)
    assert keep_mask(*grid, 0.0, 1).all()
    assert not keep_mask(*grid, 1.0, 1).any()
    assert (dropout_factor(*grid, 1.0, 1) == 0.0).all()


def test_share_of_kept_entries() -> None:
    kept = keep_mask(np.arange(500)[:, None], np.arange(200), 1, 2, 0.3, 77)
    # Five standard deviations of a binomial share.
    assert abs(kept.mean() - 0.7) < 5 * np.sqrt(0.3 * 0.7 / kept.size)


def test_factor_keeps_the_mean() -> None:
    factor = dropout_factor(np.arange(50)[:, None], np.arange(20), 0, 0, 0.2, 1)
    assert set(np.unique(factor)) == {0.0, 1.0 / 0.8}


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_seeds_of_more_than_64_bits_raise(seed: int) -> None:
    with pytest.raises(ValueError, match="seed"):
        keep_mask(0, 0, 0, 0, 0.5, seed)


def test_operator_drops_what_the_mask_says() -> None:
    # One head, dilation 2, documents: the key's rank counts within its own segment.
    n, bounds = 13, np.array([0, 5, 13])
    value = np.eye(n)[None, :, None, :]
    query = np.zeros((1, n, 1, n))
    pattern = Pattern(((4, 2),))
    out, _ = forward(query, query, value, pattern, cu_seqlens=bounds, dropout_p=0.5, seed=21)
    for p in (5, 7, 9, 11):
        first = 5 if p < 9 else 9
        for rank, k in enumerate((first, first + 2)):
            expected = dropout_factor(p, rank, 0, 0, 0.5, 21) / 2.0
            assert np.isclose(out[0, p, 0, k], expected, rtol=1e-15)

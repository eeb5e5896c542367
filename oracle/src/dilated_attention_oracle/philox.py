"""Philox 4x32-10 and the dropout decisions drawn from it.

Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]

ROUNDS = 10
MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL = (0x9E3779B9, 0xBB67AE85)
LOW = 0xFFFFFFFF


def philox4x32(counter: npt.NDArray[np.uint64], key: tuple[int, int]) -> Words:
    """Four random words for each counter.

    Each of ten rounds maps ``(c0, c1, c2, c3)`` to
    ``(hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0))`` and then adds the Weyl
    constants to the key (SC 2011, section 3.3).

    Args:
        counter: ``(..., 4)`` unsigned integers below 2^32.
        key: Two integers below 2^32.

    Returns:
        ``(..., 4)`` uint32.
    """
    low, high = np.uint64(LOW), np.uint64(32)
    c0, c1, c2, c3 = (counter[..., word].astype(np.uint64) for word in range(4))
    for number in range(ROUNDS):
        k0, k1 = (np.uint64((key[j] + number * WEYL[j]) & LOW) for j in range(2))
        product0, product1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> high) ^ c1 ^ k0,
            product1 & low,
            (product0 >> high) ^ c3 ^ k1,
            product0 & low,
        )
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def keep_mask(
    position: npt.ArrayLike,
    rank: npt.ArrayLike,
    batch_head: npt.ArrayLike,
    branch: npt.ArrayLike,
    dropout_p: float,
    seed: int,
) -> npt.NDArray[np.bool_]:
    """Which entries of P are kept, in global indices.

    The counter is ``(p mod 2^32, t // 4, batch*H + h, branch*2^16 + p // 2^32)``, the key the low
    and high 32 bits of the seed, and the entry is kept iff word ``t mod 4`` of the block is at
    least ``floor(dropout_p * 2^32)``. So ``dropout_p = 1`` keeps nothing.

    Args:
        position: Global query position p.
        rank: ``t = ((k - start) mod w) // r``, the key's rank in its segment.
        batch_head: ``batch * H + h``.
        branch: Index of the branch.
        dropout_p: Probability in [0, 1].
        seed: Any integer of 64 bits, signed or not.

    Returns:
        Bool array of the broadcast shape.

    Raises:
        ValueError: If the seed does not fit in 64 bits.
    """
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed: expected an integer of 64 bits, got {seed}")
    p, t, bh, i = np.broadcast_arrays(
        *(np.asarray(x, dtype=np.int64) for x in (position, rank, batch_head, branch))
    )
    counter = np.stack([p & LOW, t // 4, bh, i * 2**16 + (p >> 32)], axis=-1).astype(np.uint64)
    words = philox4x32(counter, (seed & LOW, (seed >> 32) & LOW))
    word = np.take_along_axis(words, (t % 4)[..., None], axis=-1)[..., 0]
    return word.astype(np.uint64) >= np.uint64(int(dropout_p * 2**32))


def dropout_factor(
    position: npt.ArrayLike,
    rank: npt.ArrayLike,
    batch_head: npt.ArrayLike,
    branch: npt.ArrayLike,
    dropout_p: float,
    seed: int,
) -> npt.NDArray[np.float64]:
    """``D = keep / (1 - dropout_p)``, and 0 everywhere for ``dropout_p = 1``.

    Args:
        position: As in `keep_mask`.
        rank: As in `keep_mask`.
        batch_head: As in `keep_mask`.
        branch: As in `keep_mask`.
        dropout_p: As in `keep_mask`.
        seed: As in `keep_mask`.

    Returns:
        float64 array of the broadcast shape.
    """
    keep = keep_mask(position, rank, batch_head, branch, dropout_p, seed)
    if dropout_p == 1.0:
        return np.zeros(keep.shape)
    return keep / (1.0 - dropout_p)

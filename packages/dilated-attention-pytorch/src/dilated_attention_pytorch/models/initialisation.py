"""How a decoder's parameters start."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from .block import DecoderBlock


def initialise(embedding: nn.Embedding, blocks: Sequence[DecoderBlock]) -> None:
    """Draw embeddings and projections from torch's generator.

    Xavier normal with gain 1 for the projections of query and key, and with MAGNETO's gain for a
    decoder of N layers, `sqrt(ln 2N)`, for those of value and output and for the feed-forward
    (Wang et al. 2022, arXiv 2210.06423, Fig. 2). Embeddings are normal with variance 1/e: the
    model multiplies them by sqrt(e) on the way in and reads logits off them on the way out.

    Args:
        embedding: The token embedding, (vocab_size, e).
        blocks: All N blocks.
    """
    gain = math.sqrt(math.log(2 * len(blocks)))
    nn.init.normal_(embedding.weight, std=embedding.embedding_dim**-0.5)
    for block in blocks:
        attention, feed_forward = block.attention, block.feed_forward
        for projection in (attention.q_proj, attention.k_proj):
            nn.init.xavier_normal_(projection.weight)
        for projection in (
            attention.v_proj,
            attention.out_proj,
            feed_forward.fc1,
            feed_forward.fc2,
        ):
            nn.init.xavier_normal_(projection.weight, gain)

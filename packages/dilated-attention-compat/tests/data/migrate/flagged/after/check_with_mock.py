from unittest import mock

import pytest
from dilated_attention_pytorch import create_multihead_dilated_attention


# TODO(dilated-attention-migrate): RingDilatedAttention: a path in a string is not followed; what it leads to changes
@mock.patch("dilated_attention_pytorch.ring_dilated_attention.RingDilatedAttention")
def test_the_core_is_built_once(core):
    create_multihead_dilated_attention("ring", 64, 4, [16], [1])
    assert core.call_count <= 1

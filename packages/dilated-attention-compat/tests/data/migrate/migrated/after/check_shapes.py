"""Shape checks in the style of the old test suite."""

import pytest
import torch

from dilated_attention_pytorch import RingDilatedAttentionV2, create_multihead_dilated_attention, RingMultiheadDilatedAttentionV2

SEGMENTS = [16, 32, 64]
RATES = [1, 2, 4]


@pytest.fixture
def layer():
    return create_multihead_dilated_attention("ring", embed_dim=48, num_heads=6, segment_lengths=SEGMENTS, dilation_rates=RATES, device="cpu", dtype=torch.float32)


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("n", [64, 128])
def test_core_shape(n, is_causal):
    x = torch.randn(2, n, 6, 8)
    out = RingDilatedAttentionV2(segment_lengths=SEGMENTS, dilation_rates=RATES)(x, x, x, is_causal)
    assert out.shape == x.shape


def test_layer_shape(layer):
    assert isinstance(layer, RingMultiheadDilatedAttentionV2)
    x = torch.randn(2, 64, 48)
    out, weights = layer(x, need_weights=False)
    assert out.shape == x.shape and weights is None

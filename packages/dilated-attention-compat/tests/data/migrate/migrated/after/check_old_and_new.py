import unittest

import torch

from dilated_attention_pytorch import RingDilatedAttentionV2


class AgreementTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.old = RingDilatedAttentionV2(segment_lengths=[16], dilation_rates=[1])
        self.new = RingDilatedAttentionV2([16], [1], ring_size=4)

    def test_same_shape(self):
        x = torch.randn(1, 16, 2, 4)
        self.assertEqual(self.old(x, x, x).shape, self.new(x, x, x).shape)

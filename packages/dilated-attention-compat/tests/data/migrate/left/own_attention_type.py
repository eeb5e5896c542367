from dilated_attention_pytorch import create_dilated_attention, register_attention
from torch import nn


class Blocks(nn.Module):
    def __init__(self, segment_lengths, dilation_rates, block_size):
        super().__init__()


register_attention("blocks", Blocks)
attention = create_dilated_attention("blocks", [16], [1], block_size=64)

import torch
from torch import nn
from dilated_attention_pytorch import RingDilatedAttentionV2, RingMultiheadDilatedAttentionV2 as Ring, create_multihead_dilated_attention


def count(model: nn.Module) -> int:
    total = 0
    for name, module in model.named_modules():
        if type(module) is RingDilatedAttentionV2 or isinstance(module, Ring | nn.MultiheadAttention):
            total += 1
        elif module.__class__.__name__ == "RingDilatedAttention":
            print("a RingDilatedAttention by name:", name, RingDilatedAttentionV2.__name__)
    return total


def replace(model, segments, rates):
    for name, child in model.named_children():
        if isinstance(child, nn.MultiheadAttention):
            setattr(model, name, create_multihead_dilated_attention("ring", embed_dim=child.embed_dim, num_heads=child.num_heads, segment_lengths=segments, dilation_rates=rates))
        else:
            replace(child, segments, rates)

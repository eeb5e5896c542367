import torch
from torch import nn
from dilated_attention_pytorch import RingDilatedAttention, RingMultiheadDilatedAttention as Ring


def count(model: nn.Module) -> int:
    total = 0
    for name, module in model.named_modules():
        if type(module) is RingDilatedAttention or isinstance(module, Ring | nn.MultiheadAttention):
            total += 1
        elif module.__class__.__name__ == "RingDilatedAttention":
            print("a RingDilatedAttention by name:", name, RingDilatedAttention.__name__)
    return total


def replace(model, segments, rates):
    for name, child in model.named_children():
        if isinstance(child, nn.MultiheadAttention):
            setattr(model, name, Ring(child.embed_dim, child.num_heads, segments, rates))
        else:
            replace(child, segments, rates)

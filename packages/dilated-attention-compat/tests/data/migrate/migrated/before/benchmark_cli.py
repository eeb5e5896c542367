#!/usr/bin/env python3
"""Time a forward pass."""

import argparse
import time

import torch

from dilated_attention_pytorch import ImprovedDilatedAttention, RingDilatedAttention

parser = argparse.ArgumentParser()
parser.add_argument("--n", type=int, default=8192)
parser.add_argument("--ring-size", type=int, default=1)
args = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
segments = [args.n // 4, args.n // 2, args.n]
for label, attn in (
    ("ring", RingDilatedAttention(segments, [1, 2, 4], ring_size=args.ring_size, device=device)),
    ("improved", ImprovedDilatedAttention(segments, [1, 2, 4], use_tf32=False, device=device)),
):
    q = torch.randn(1, args.n, 8, 64, device=device)
    start = time.perf_counter()
    attn(q, q, q)
    print(f"{label:10s} {time.perf_counter() - start:.3f} s")

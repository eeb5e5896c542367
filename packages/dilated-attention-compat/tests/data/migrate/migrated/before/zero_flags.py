"""A configuration that never constructed; what was meant still can be had."""

from dilated_attention_pytorch.ring_distributed_dilated_attention import (
    RingDistributedDilatedAttention,
)

model = RingDistributedDilatedAttention(
    embed_dim=1024,
    num_heads=16,
    segment_lengths=[2048, 4096, 8192],
    dilation_rates=[1, 2, 4],
    use_deepspeed=True,
    zero_stage=3,
    cpu_offload=False,
    enable_fault_tolerance=True,
    checkpoint_interval=500,
    log_level="DEBUG",
)

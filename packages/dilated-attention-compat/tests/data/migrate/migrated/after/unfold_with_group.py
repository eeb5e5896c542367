import torch.distributed as dist

from dilated_attention_pytorch import RingDilatedAttentionV2

dist.init_process_group("nccl")
attention = RingDilatedAttentionV2(
    segment_lengths=[2048, 4096], dilation_rates=[1, 2], dropout=0.0, ring_size=dist.get_world_size(), group=dist.group.WORLD
)

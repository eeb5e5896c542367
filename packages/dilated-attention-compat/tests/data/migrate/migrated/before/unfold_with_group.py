import torch.distributed as dist

from dilated_attention_pytorch.ring_dilated_attention_unfold import UnfoldRingDilatedAttention

dist.init_process_group("nccl")
attention = UnfoldRingDilatedAttention(
    [2048, 4096], [1, 2], 0.0, dist.get_world_size(), ring_group=dist.group.WORLD
)

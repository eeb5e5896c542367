"""torchrun --nproc-per-node 8 several_ranks.py"""
import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP

from dilated_attention_pytorch import RingMultiheadDilatedAttention


def main():
    dist.init_process_group("nccl")
    rank = int(os.environ["LOCAL_RANK"])
    torch.cuda.set_device(rank)
    # TODO(dilated-attention-migrate): RingMultiheadDilatedAttention: torch.distributed is in use: say group= (one ring) or simulate=True
    model = RingMultiheadDilatedAttention(
        embed_dim=768,
        num_heads=12,
        segment_lengths=[2048, 4096, 8192],
        dilation_rates=[1, 2, 4],
        ring_size=dist.get_world_size(),
    ).cuda()
    ddp = DDP(model, device_ids=[rank])
    x = torch.randn(1, 8192, 768, device="cuda")
    ddp(x, x, x)[0].sum().backward()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

from dilated_attention_pytorch import DistributedImprovedDilatedAttention, DistributedImprovedMultiheadDilatedAttention

core = DistributedImprovedDilatedAttention([16, 32], [1, 2], 0.1, use_flash_attention=True)
layer = DistributedImprovedMultiheadDilatedAttention(
    512, 8, [16, 32], [1, 2], use_deepspeed=False, compile_model=True
)

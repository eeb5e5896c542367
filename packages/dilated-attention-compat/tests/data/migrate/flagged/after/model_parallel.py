from dilated_attention_pytorch.ring_distributed_dilated_attention import RingDistributedDilatedAttention
from dilated_attention_pytorch import DistributedImprovedDilatedAttention as DID

# TODO(dilated-attention-migrate): RingDistributedDilatedAttention: model_parallel= has no counterpart
a = RingDistributedDilatedAttention(512, 8, [16], [1], model_parallel=True)
# TODO(dilated-attention-migrate): DistributedImprovedDilatedAttention: sequence_parallel= has no counterpart
b = DID([16], [1], sequence_parallel=True)
# TODO(dilated-attention-migrate): DistributedImprovedDilatedAttention: takes at most 9 positional arguments
c = DID([16], [1], 0.0, True, False, False, True, None, None, "extra")

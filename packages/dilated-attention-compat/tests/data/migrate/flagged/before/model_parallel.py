from dilated_attention_pytorch.ring_distributed_dilated_attention import RingDistributedDilatedAttention
from dilated_attention_pytorch import DistributedImprovedDilatedAttention as DID

a = RingDistributedDilatedAttention(512, 8, [16], [1], model_parallel=True)
b = DID([16], [1], sequence_parallel=True)
c = DID([16], [1], 0.0, True, False, False, True, None, None, "extra")

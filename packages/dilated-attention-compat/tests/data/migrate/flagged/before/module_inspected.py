import inspect
import dilated_attention_pytorch.ring_dilated_attention as rda

attention = rda.RingDilatedAttention([16], [1])
print(inspect.getsource(rda))

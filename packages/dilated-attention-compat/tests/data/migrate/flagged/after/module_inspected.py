import inspect
# TODO(dilated-attention-migrate): RingDilatedAttention: rda is used for other things than this name too
import dilated_attention_pytorch.ring_dilated_attention as rda

attention = rda.RingDilatedAttention([16], [1])
print(inspect.getsource(rda))

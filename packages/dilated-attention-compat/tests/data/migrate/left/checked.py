from dilated_attention_pytorch import MultiheadDilatedAttention


# dilated-attention-migrate: checked, it overrides nothing
class Named(MultiheadDilatedAttention):
    name = "first"

from dilated_attention_pytorch.core import (
    BaseDilatedAttention,
    DilatedAttentionConfig,
    register_attention,
)


# TODO(dilated-attention-migrate): BaseDilatedAttention: gone; use torch.nn.Module, with register_attention
class MeanAttention(BaseDilatedAttention):
    def forward(self, q, k, v, is_causal=False, attention_mask=None):
        return v.mean(1, keepdim=True).expand_as(v)


register_attention("mean", MeanAttention)
# TODO(dilated-attention-migrate): DilatedAttentionConfig: goes in 0.3.0; use keyword arguments
print(MeanAttention(DilatedAttentionConfig(segment_lengths=[16], dilation_rates=[1])))

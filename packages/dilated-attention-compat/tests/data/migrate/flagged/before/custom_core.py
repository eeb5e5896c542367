from dilated_attention_pytorch.core import (
    BaseDilatedAttention,
    DilatedAttentionConfig,
    register_attention,
)


class MeanAttention(BaseDilatedAttention):
    def forward(self, q, k, v, is_causal=False, attention_mask=None):
        return v.mean(1, keepdim=True).expand_as(v)


register_attention("mean", MeanAttention)
print(MeanAttention(DilatedAttentionConfig(segment_lengths=[16], dilation_rates=[1])))

import importlib.util


def make_attention(cfg):
    """Import late: the package is optional."""
    if importlib.util.find_spec("dilated_attention_pytorch") is None:
        raise RuntimeError("install dilated-attention-pytorch first")
    from dilated_attention_pytorch import RingMultiheadDilatedAttention

    return RingMultiheadDilatedAttention(
        embed_dim=cfg.model.dim, num_heads=cfg.model.heads,
        segment_lengths=cfg.model.segments, dilation_rates=cfg.model.rates,
        dropout=cfg.model.dropout, use_flash_attention=cfg.model.flash,
    )


def is_old(layer):
    from dilated_attention_pytorch import RingMultiheadDilatedAttention
    return isinstance(layer, RingMultiheadDilatedAttention)

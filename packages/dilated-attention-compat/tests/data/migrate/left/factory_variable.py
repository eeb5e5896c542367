from dilated_attention_pytorch import create_multihead_dilated_attention


def make(kind, **options):
    return create_multihead_dilated_attention(kind, embed_dim=64, num_heads=4, **options)

import dilated_attention_pytorch as dap


def build(RingDilatedAttention, block_size=16):
    return RingDilatedAttention([16], [1], block_size=block_size)


class Holder:
    class RingMultiheadDilatedAttention:
        pass

    made = RingMultiheadDilatedAttention()


print(dap.__name__)

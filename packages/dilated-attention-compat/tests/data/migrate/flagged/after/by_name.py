import importlib

import dilated_attention_pytorch as dap

# TODO(dilated-attention-migrate): RingDilatedAttention: a path in a string is not followed; what it leads to changes
module = importlib.import_module("dilated_attention_pytorch.ring_dilated_attention")
cls = module.RingDilatedAttention
# TODO(dilated-attention-migrate): RingMultiheadDilatedAttention: a path in a string is not followed; what it leads to changes
config = {"_target_": "dilated_attention_pytorch.RingMultiheadDilatedAttention", "embed_dim": 512}
print(dap.__version__, cls)

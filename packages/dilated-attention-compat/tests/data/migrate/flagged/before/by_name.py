import importlib

import dilated_attention_pytorch as dap

module = importlib.import_module("dilated_attention_pytorch.ring_dilated_attention")
cls = module.RingDilatedAttention
config = {"_target_": "dilated_attention_pytorch.RingMultiheadDilatedAttention", "embed_dim": 512}
print(dap.__version__, cls)

import yaml
from dilated_attention_pytorch import RingMultiheadDilatedAttention

with open("model.yaml") as f:
    config = yaml.safe_load(f)

attention = RingMultiheadDilatedAttention(**config["attention"])
head = RingMultiheadDilatedAttention(512, 8, [16], [1])

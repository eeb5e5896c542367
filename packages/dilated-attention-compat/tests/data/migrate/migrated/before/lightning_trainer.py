import pytorch_lightning as pl
import torch
from torch import nn
from dilated_attention_pytorch import RingMultiheadDilatedAttention


class LitLM(pl.LightningModule):
    def __init__(self, vocab=50257, dim=768, heads=12, lr=3e-4):
        super().__init__()
        self.save_hyperparameters()
        self.embed = nn.Embedding(vocab, dim)
        self.attn = RingMultiheadDilatedAttention(dim, heads, segment_lengths=[2048, 4096, 8192], dilation_rates=[1, 2, 4], layer_norm=True, gamma_init=1.0, use_tf32=True, block_size=2048)
        self.head = nn.Linear(dim, vocab)

    def training_step(self, batch, batch_idx):
        x = self.embed(batch["input_ids"])
        x, _ = self.attn(x, x, x, is_causal=True)
        loss = nn.functional.cross_entropy(self.head(x).flatten(0, 1), batch["labels"].flatten())
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)

# Configuration of the dilated_attention_pytorch experiments; nothing here yet.

from dilated_attention_pytorch.ring_dilated_attention import *
import torch

"""Whole models over the public functions: LongNet as it was, a decoder, and what trains them."""

from __future__ import annotations

from .cache import KeyValueCache as KeyValueCache
from .config import DecoderConfig as DecoderConfig
from .decoder import DilatedDecoderLM as DilatedDecoderLM
from .decoder_layer import DilatedTransformerDecoderLayer as DilatedTransformerDecoderLayer
from .encoder_layer import DilatedTransformerEncoderLayer as DilatedTransformerEncoderLayer
from .generation import generate as generate
from .longnet import LongNet as LongNet
from .longnet_lm import LongNetLM as LongNetLM
from .loss import next_token_loss as next_token_loss
from .loss import next_token_pairs as next_token_pairs
from .rotary import Rotation as Rotation
from .training import sum_gradients as sum_gradients
from .training import training_step as training_step
from .xpos import XPos as XPos

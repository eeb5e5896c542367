"""Whole models over the public functions: a LongNet decoder of bytes, and what trains it."""

from __future__ import annotations

from .config import DecoderConfig as DecoderConfig
from .decoder import DilatedDecoderLM as DilatedDecoderLM
from .generation import generate as generate
from .loss import next_token_loss as next_token_loss
from .loss import next_token_pairs as next_token_pairs
from .training import sum_gradients as sum_gradients
from .training import training_step as training_step

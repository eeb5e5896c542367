"""Hypothesis strategies for dilated attention, biased to the edges (extra ``conformance``)."""

from __future__ import annotations

from dilated_attention_oracle.strategies.arrays import normals as normals
from dilated_attention_oracle.strategies.cases import Case as Case
from dilated_attention_oracle.strategies.cases import cases as cases
from dilated_attention_oracle.strategies.dtypes import dtypes as dtypes
from dilated_attention_oracle.strategies.features import FEATURES as FEATURES
from dilated_attention_oracle.strategies.masks import boundaries as boundaries
from dilated_attention_oracle.strategies.masks import key_masks as key_masks
from dilated_attention_oracle.strategies.partitions import partitions as partitions
from dilated_attention_oracle.strategies.partitions import shard_lengths as shard_lengths
from dilated_attention_oracle.strategies.specs import branches as branches
from dilated_attention_oracle.strategies.specs import head_counts as head_counts
from dilated_attention_oracle.strategies.specs import lengths as lengths
from dilated_attention_oracle.strategies.specs import patterns as patterns

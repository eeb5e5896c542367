"""Dilated attention by definition: float64 NumPy, simple enough to check by reading."""

from __future__ import annotations

from dilated_attention_oracle.gradients import backward as backward
from dilated_attention_oracle.merging import merge as merge
from dilated_attention_oracle.merging import merge_partials as merge_partials
from dilated_attention_oracle.operator import forward as forward
from dilated_attention_oracle.pattern import Pattern as Pattern
from dilated_attention_oracle.precision import round_to as round_to
from dilated_attention_oracle.results import Result as Result
from dilated_attention_oracle.ring import ring_backward as ring_backward
from dilated_attention_oracle.ring import ring_forward as ring_forward
from dilated_attention_oracle.terms import Terms as Terms
from dilated_attention_oracle.terms import term_sizes as term_sizes
from dilated_attention_oracle.tolerance import Report as Report
from dilated_attention_oracle.tolerance import check as check
from dilated_attention_oracle.tolerance import check_lse as check_lse
from dilated_attention_oracle.tolerance import check_result as check_result
from dilated_attention_oracle.traffic import rows_needed as rows_needed

__version__ = "0.2.1"

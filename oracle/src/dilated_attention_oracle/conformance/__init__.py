"""The conformance kit: the contract of dilated attention, run on anybody's function.

``pytest --attention-impl=module:object`` runs it; see `Implementation` for what the object is.
"""

from __future__ import annotations

from dilated_attention_oracle.conformance.protocol import CAPABILITIES as CAPABILITIES
from dilated_attention_oracle.conformance.protocol import Implementation as Implementation

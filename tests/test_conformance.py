"""The public functions pass the whole conformance kit, every capability claimed."""

from __future__ import annotations

import pytest

from dilated_attention_oracle.adapters.torch_adapter import TorchImplementation
from dilated_attention_oracle.conformance.test_determinism import TestDeterminism as TestDeterminism
from dilated_attention_oracle.conformance.test_errors import TestErrors as TestErrors
from dilated_attention_oracle.conformance.test_forward import TestForward as TestForward
from dilated_attention_oracle.conformance.test_gradients import TestGradients as TestGradients
from dilated_attention_oracle.conformance.test_masking import TestMasking as TestMasking
from dilated_attention_oracle.conformance.test_merging import TestMerging as TestMerging
from dilated_attention_oracle.conformance.test_sharding import TestSharding as TestSharding
from dilated_attention_oracle.conformance.test_vectors import TestVectors as TestVectors
from support.implementations import public


@pytest.fixture(scope="session", name="attention_implementation")
def _attention_implementation() -> TorchImplementation:
    return public

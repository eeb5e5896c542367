"""What the migration writes exists in the package, and what it takes away does not."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("libcst")

import dilated_attention_pytorch as package
from dilated_attention_compat import RECORDS, Fate, LegacyRecord, Ran, load
from dilated_attention_compat.migrate.instances import (
    LOST_ATTRIBUTES,
    LOST_OF_LAYERS,
    forward_parameters,
)
from dilated_attention_compat.migrate.vocabulary import (
    CLASSES,
    PACKAGE,
    STILL_THERE,
    OldName,
    Treatment,
    Vocabulary,
)
from dilated_attention_pytorch.factory import create_dilated_attention as create_core
from dilated_attention_pytorch.factory import create_multihead_dilated_attention as create


def parameter_names(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


NAMES = {name.record.name: name for name in Vocabulary().by_path.values()}
REWRITTEN = [name for name in NAMES.values() if name.record.rewrite]
WITH_FORWARD = [
    record
    for record in RECORDS
    if record.rewrite and record.fate is Fate.COMPAT and record.ran is Ran.FORWARD
]


@pytest.mark.parametrize("old", REWRITTEN, ids=lambda old: old.record.name)
def test_a_rewrite_leads_to_something_that_takes_its_arguments(old: OldName) -> None:
    rewrite = old.record.rewrite
    assert rewrite is not None
    assert old.home == PACKAGE
    target, reference = getattr(package, old.callee), getattr(package, old.reference)
    assert isinstance(reference, type) or old.treatment is Treatment.ADJUST
    taken = parameter_names(reference if rewrite.attention_type else target)
    renamed = dict(rewrite.renamed)
    kept = [p for p in rewrite.parameters if p not in (*rewrite.dropped, *rewrite.flagged)]
    assert {renamed.get(p, p) for p in kept} <= set(taken)


@pytest.mark.parametrize("attention_type", CLASSES)
def test_the_factory_makes_the_class_that_references_become(attention_type: str) -> None:
    made = create(attention_type, 8, 2, [4], [1], simulate=True)
    assert type(made).__name__ == CLASSES[attention_type]


def test_module_paths_that_are_not_moved_are_there() -> None:
    for path in STILL_THERE:
        assert importlib.import_module(path).create_dilated_attention is create_core


@pytest.mark.parametrize("attribute", sorted(LOST_ATTRIBUTES))
def test_attributes_called_lost_are_lost(attribute: str) -> None:
    modules: list[torch.nn.Module] = [
        create_core("ring", [4], [1]),
        create("ring", 8, 2, [4], [1]),
        package.RingAttentionCorrectV2(),
    ]
    assert not any(hasattr(module, attribute) for module in modules)


def test_attributes_called_lost_of_layers_are_lost_there() -> None:
    (attribute,) = LOST_OF_LAYERS - LOST_ATTRIBUTES
    assert hasattr(create_core("ring", [4], [1]), attribute)
    assert not hasattr(create("ring", 8, 2, [4], [1]), attribute)


@pytest.mark.parametrize("record", WITH_FORWARD, ids=lambda record: record.name)
def test_parameters_of_forward_are_the_historical_ones(record: LegacyRecord) -> None:
    names = parameter_names(load(record).forward)
    assert tuple(names) == forward_parameters(NAMES[record.name])

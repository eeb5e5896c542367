"""State dicts saved by historical classes that computed something else under the same keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn

from ._warn import warn_caller

GUIDE: Final = "docs/guides/ring-attention-migration.md"


class CorrectedModule(nn.Module):
    """A module whose historical namesake computed wrong attention.

    `_version = 2` travels in the metadata of each state dict. A state dict with an older version,
    or with this module's weights and no version at all, raises one FutureWarning for the module.
    """

    _version = 2

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, torch.Tensor],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        version = local_metadata.get("version")
        holds_weights = any(name.startswith(prefix) for name in state_dict)
        if (version is None and holds_weights) or (version is not None and version < 2):
            where = prefix.rstrip(".") or "this state_dict"
            saved = "no version" if version is None else f"version {version}"
            warn_caller(
                f"{where} ({type(self).__name__}) was saved with {saved}: by the historical "
                "class, whose attention was wrong, so these weights were trained under wrong "
                "attention and the correct one gives other outputs (a checkpoint of the present "
                f"class has version 2; some file formats drop it). See {GUIDE}",
                FutureWarning,
            )
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )

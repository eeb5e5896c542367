"""`dilated-attention-migrate`: rewrite programs, notebooks and checkpoints of the old package.

Nothing here imports torch, but for checkpoints; rewriting needs LibCST (the extra `migrate`).
"""

from __future__ import annotations

"""`python -m dilated_attention_compat.migrate` is `dilated-attention-migrate`."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())

"""`python -m dilated_attention_pytorch.cli` is the command `dilated-attention`."""

from __future__ import annotations

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())

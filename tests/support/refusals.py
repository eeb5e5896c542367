"""What a refusal must be: one class of error, and a message that says enough."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest


def refuses(call: Callable[[], object], error: type[Exception], words: tuple[str, ...]) -> None:
    """Exactly this class of error, and a message with these words in this order."""
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    pattern = ".*".join(re.escape(word) for word in words)
    assert re.search(pattern, str(caught.value), re.S), str(caught.value)

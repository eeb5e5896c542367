"""Generation: greedy and drawn tokens, the window, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dilated_attention_pytorch import DilationPattern
from dilated_attention_pytorch.models import DecoderConfig, DilatedDecoderLM, generate

PROMPT = torch.tensor([[1, 2, 3], [4, 5, 6]])


def model() -> DilatedDecoderLM:
    torch.manual_seed(0)
    pattern = DilationPattern.longnet([4, 8], [1, 2])
    return DilatedDecoderLM(DecoderConfig(pattern, vocab_size=11, embed_dim=16, num_layers=1))


def test_greedy_takes_the_likeliest_token_of_the_window() -> None:
    lm, seen = model(), list[torch.Tensor]()
    lm.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    tokens = generate(lm, PROMPT, 9, window=5)
    assert tokens.shape == (2, 12)
    assert torch.equal(tokens[:, :3], PROMPT)
    passes = [tokens[:, max(0, n - 5) : n] for n in range(3, 12)]
    assert [x.tolist() for x in seen] == [x.tolist() for x in passes]
    for n, window in enumerate(passes, start=3):
        assert torch.equal(tokens[:, n], lm(window)[:, -1].argmax(-1))


def test_draws_follow_the_softmax_of_the_tempered_logits() -> None:
    lm, count, temperature = model(), 4000, 0.7
    prompt = PROMPT[:1].expand(count, 3)
    drawn = generate(
        lm, prompt, 1, window=8, temperature=temperature, generator=torch.Generator().manual_seed(0)
    )[:, -1]
    shares = (lm(PROMPT[:1])[0, -1].detach() / temperature).softmax(-1)
    found = torch.bincount(drawn, minlength=11) / count
    deviation = (shares * (1 - shares) / count).sqrt()
    assert bool(((found - shares).abs() <= 5 * deviation).all())


def test_a_generator_repeats_its_draws() -> None:
    lm = model()

    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return generate(lm, PROMPT, 20, window=8, temperature=1.0, generator=generator)

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": PROMPT[0]}, "prompt must have shape"),
        ({"prompt": PROMPT[:, :0]}, "n >= 1"),
        ({"length": -1}, "must not be negative"),
        ({"window": 0}, "window at least 1"),
        ({"temperature": -0.5}, "temperature must not be negative"),
    ],
)
def test_wrong_values_are_refused(change: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {"prompt": PROMPT, "length": 2, "window": 4} | change
    with pytest.raises(ValueError, match=words):
        generate(model(), **arguments)

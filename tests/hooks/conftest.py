from __future__ import annotations

import pytest
import torch

from hooks.families.wavtokenizer import WavTokenizerCodec
from hooks.networks.wavtokenizer import WavTokenizer, WavTokenizerConfig

TINY = WavTokenizerConfig(
    sample_rate=8_000,
    dimension=8,
    n_filters=4,
    ratios=(5, 4, 2),
    bins=16,
    num_quantizers=2,
    width=32,
    hidden=48,
    num_layers=2,
    num_conditions=None,
    attention=False,
    n_fft=160,
)
"""A whole codec of real architecture: 8 kHz, 40 samples a frame, 200 frames a second."""


@pytest.fixture
def config() -> WavTokenizerConfig:
    return TINY


@pytest.fixture
def codec() -> WavTokenizerCodec:
    """A tiny codec with random weights and codebooks of the size of its latent."""
    torch.manual_seed(0)
    module = WavTokenizer(TINY)
    with torch.no_grad():
        spread = module.encode(torch.randn(1, 4_000)).std()
        for book in module.quantizer.codebooks():
            book.embed.normal_(0, float(spread))
    return WavTokenizerCodec(module, "tiny", quantize=False)

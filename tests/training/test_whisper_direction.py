from __future__ import annotations

import torch

from hooks.families.source_filter import SourceFilterCodec
from hooks.networks.source_filter import SourceFilter, SourceFilterConfig
from training.whisper_direction import whisper_direction, whisper_loss

SMALL = SourceFilterConfig(
    dimension=8, encoder_width=16, encoder_layers=2, decoder_width=16, decoder_layers=2, pitch_channels=2, bands=16
)


def test_the_direction_leaves_the_pitch_and_makes_the_loss_smaller() -> None:
    torch.manual_seed(0)
    codec = SourceFilterCodec(SourceFilter(SMALL))
    latents = [torch.randn(100, 8) + torch.tensor([0.0, 3.0, *[0.0] * 6]) for _ in range(4)]
    none, few, many = (whisper_direction(codec, latents, steps) for steps in (0, 5, 80))
    assert none[0] == few[0] == many[0] == 0
    z_BTD = torch.stack(latents)
    with torch.no_grad():
        losses = [float(whisper_loss(codec, z_BTD, direction_D)) for direction_D in (none, few, many)]
    assert losses[2] < losses[1] < losses[0]
    assert all(parameter.grad is None for parameter in codec.module.parameters())

from __future__ import annotations

import pytest
import torch

from apps.samples import MELODY, sung_phrase
from evaluation.acoustics import measure


def test_the_phrase_is_sung_on_its_notes() -> None:
    pytest.importorskip("torchcrepe", reason="extra eval")
    clip = sung_phrase()
    assert clip.waveform.abs().max() == pytest.approx(0.3)
    track = measure(clip.waveform, clip.sample_rate).pitch_track
    assert track is not None
    notes = track.view(len(MELODY), -1)[:, 20:40].nanmedian(dim=1).values
    # vibrato is a quarter of a semitone to either side
    assert torch.allclose(notes, torch.tensor([float(note) for note, _ in MELODY]), atol=0.4)

"""The gate by a detector of which all is known: it hears speech up to the level of a sound."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from evaluation import vad_gate
from evaluation.dataset import LabelledSound
from evaluation.steering_search import Limit, Trial, choose
from evaluation.transcripts import Clips, Heard
from evaluation.vad_gate import Gate, detected, gated, silero, trials

pytest.importorskip("whisper", reason="extra whisper")
pytest.importorskip("jiwer", reason="extra whisper")


def sound(level: float, text: str = "") -> LabelledSound:
    return LabelledSound(torch.full((16_000,), level), str(level), {"text": text})


CLIPS = Clips([sound(0.1), sound(0.3), sound(0.6)], [sound(0.5, "hello"), sound(0.9, "good bye")], "valid")
HEARD = [Heard("you", ("you",), 0.1, 1.0)] * 3 + [
    Heard("hello", ("hello",), 0.1, 1.0),
    Heard("good bye", ("good", "bye"), 0.1, 1.0),
]


def level(audio_N: Tensor) -> float:
    return float(audio_N.mean())


def test_only_what_is_above_the_threshold_is_transcribed() -> None:
    found = detected(level, CLIPS.all)
    assert found == pytest.approx([0.1, 0.3, 0.6, 0.5, 0.9], abs=1e-3)
    left = gated(HEARD, found, Gate(0.4))
    assert [one.text for one in left] == ["", "", "you", "hello", "good bye"]
    assert left[0].no_speech_prob is None and left[0].words == ()


def test_the_threshold_is_chosen_by_the_rule() -> None:
    found = detected(level, CLIPS.all)
    tried = trials(CLIPS, HEARD, found, [0.05, 0.2, 0.4, 0.55, 0.7])
    # errors in three words; false alarms in three clips
    assert [round(3 * trial.wer) for trial in tried] == [0, 0, 0, 1, 1]
    assert [round(3 * trial.alarms) for trial in tried] == [3, 2, 1, 1, 0]
    plain = Trial(None, 0.0, 1.0)
    assert choose(tried, plain, Limit(0, 3)).method == Gate(0.4)
    assert choose(tried, plain, Limit(1, 3)).method == Gate(0.7)
    assert str(Gate(0.4)) == "threshold 0.4"


def test_silero_gives_its_largest_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    class Vad:
        def audio_forward(self, audio_BN: Tensor, rate: int) -> Tensor:
            assert rate == 16_000
            return audio_BN.view(1, -1, 512).mean(2)

    monkeypatch.setattr(vad_gate, "require", lambda name, extra: SimpleNamespace(load_silero_vad=Vad))
    audio_N = torch.zeros(5, 512)
    audio_N[3] = 0.75
    assert silero()(audio_N.flatten()) == 0.75


def test_silero_itself() -> None:
    pytest.importorskip("silero_vad", reason="extra eval")
    highest = silero()
    assert 0 <= highest(torch.zeros(32_000)) < 0.05
    noise_N = 0.01 * torch.randn(32_000)
    assert 0 <= highest(noise_N) < 0.5

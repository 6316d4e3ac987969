from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from training import pitched
from training.pitched import Batches, Recordings, at_level, loudest, pitch_labels, recordings, resampled, waveforms

RATE, HOP, FRAMES = 24_000, 320, 64


def harmonic(midi_N: Tensor, harmonics: int = 8) -> np.ndarray:
    """A tone whose pitch, in MIDI notes, is given at every sample."""
    phase = 2 * math.pi * torch.cumsum(440 * 2 ** ((midi_N.double() - 69) / 12) / RATE, 0)
    return (0.1 * sum((k * phase).sin() / k for k in range(1, harmonics + 1))).float().numpy()  # type: ignore[union-attr]


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Two collections: a note whose pitch is known, and an environmental sound that is loud in its middle."""
    note = harmonic(torch.full((RATE,), 57.0))
    burst = np.random.default_rng(0).standard_normal(5 * RATE).astype(np.float32) * 0.001
    burst[2 * RATE : 3 * RATE] *= 100
    folder = tmp_path / "audio"
    for name, wave, cells in (("notes", note, "57"), ("esc10", burst, "")):
        (folder / name).mkdir(parents=True)
        for split in ("train", "valid"):
            soundfile.write(folder / name / f"{split}.wav", wave, RATE, subtype="FLOAT")
        soundfile.write(folder / name / "silent.wav", 0 * wave, RATE, subtype="FLOAT")
        rows = [f"{file}.wav,{split},x,,{cells}" for file, split in
                (("train", "train"), ("valid", "valid"), ("silent", "train"))]  # fmt: skip
        (folder / name / "manifest.csv").write_text("path,split,label,text,pitch_midi\n" + "\n".join(rows) + "\n")
    return folder


@pytest.fixture
def glide() -> Recordings:
    """One clip of 4 s that glides from note 50 to note 74, labelled exactly; and a short one, of note 60."""
    count = 300 * HOP
    midi_N = 50 + 24 * torch.arange(count) / count
    wave = np.concatenate([harmonic(midi_N, 1), harmonic(torch.full((20 * HOP,), 60.0), 1)])
    midi_T = torch.cat([midi_N.view(-1, HOP).mean(1), torch.full((20,), 60.0)])
    labels = torch.stack([midi_T, torch.ones(320)], 1)
    groups = {"singing": [(0, 300)], "notes": [(300, 20)]}
    return Recordings(torch.from_numpy(wave).half(), labels, groups, RATE, HOP)


def heard_midi(x_BN: Tensor) -> Tensor:
    """Pitch of sines [B, T]: the frequency of the analytic signal, at the centres of frames."""
    count = x_BN.shape[1]
    spectrum = torch.fft.fft(x_BN.double())
    spectrum[:, count // 2 :] = 0
    analytic_BN = torch.fft.ifft(2 * spectrum)
    step_BN = (analytic_BN[:, 1:] * analytic_BN[:, :-1].conj()).angle() / (2 * math.pi) * RATE
    centres = torch.arange(count // HOP) * HOP + HOP // 2
    # over 5 ms: 16 bits of a half-precision waveform are noisy
    near = centres[:, None] + torch.arange(-60, 60)
    return 69 + 12 * (step_BN[:, near].median(2).values.clamp(min=20) / 440).log2()


class TestLabels:
    def test_of_a_tone_they_are_its_pitch(self) -> None:
        pytest.importorskip("torchcrepe", reason="extra eval: pitch by CREPE")
        for note in (None, 57.0):
            wave = harmonic(torch.full((RATE,), 57.0))
            wave[RATE // 2 :] = 0
            labels_T2 = pitch_labels(wave, RATE, HOP, 75, "notes", note)
            assert labels_T2.shape == (75, 2)
            # CREPE's small network is good for about 10 cents
            assert (labels_T2[4:33, 0] - 57).abs().max() < 0.2
            assert labels_T2[4:33, 1].min() > 0.6
            assert (labels_T2[42:, 1] == 0).all()  # silence

    def test_a_manifests_note_decides_the_octave(self) -> None:
        pytest.importorskip("torchcrepe", reason="extra eval: pitch by CREPE")
        labels_T2 = pitch_labels(harmonic(torch.full((RATE,), 57.0)), RATE, HOP, 75, "notes", 69.0)
        assert (labels_T2[:, 0] - 69).abs().max() <= pitched.NOTE_RANGE

    def test_of_collections_without_pitch_the_confidence_counts_for_less(self) -> None:
        pytest.importorskip("torchcrepe", reason="extra eval: pitch by CREPE")
        wave = harmonic(torch.full((RATE,), 57.0))
        sure, less = (pitch_labels(wave, RATE, HOP, 75, group, None)[:, 1] for group in ("notes", "esc10"))
        torch.testing.assert_close(less, 0.6 * sure)


def test_the_loudest_part_is_taken() -> None:
    wave = np.zeros(1000, np.float32)
    wave[600:650] = 1
    part = loudest(wave, 200)
    assert len(part) == 200 and part.sum() == 50
    assert np.array_equal(loudest(wave, 1000), wave)
    assert len(loudest(wave[:100], 200)) == 100


def test_every_training_clip_is_read(audio: Path) -> None:
    found = {group: (wave, note) for group, wave, note in waveforms(audio, RATE, sentences=0, seed=0)}
    assert set(found) == {"notes", "esc10"}  # and silent ones left out
    assert found["notes"][1] == 57.0
    wave, note = found["esc10"]
    assert note is None and len(wave) == pitched.ESC_S * RATE
    assert np.square(wave).sum() == pytest.approx(0.1**2 * RATE, rel=0.1)
    with pytest.raises(FileNotFoundError, match=r"no \*/manifest.csv with clips of split 'train'"):
        waveforms(audio / "notes", RATE, sentences=0, seed=0)


def test_recordings_are_labelled_once(audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def labels(wave: np.ndarray, rate: int, hop: int, frames: int, group: str, note: float | None) -> Tensor:
        calls.append(group)
        return torch.full((frames, 2), 57.0)

    monkeypatch.setattr(pitched, "pitch_labels", labels)
    first = recordings(audio, tmp_path / "cache", RATE, HOP, sentences=0)
    again = recordings(audio, tmp_path / "cache", RATE, HOP, sentences=0)
    assert sorted(calls) == ["esc10", "notes"]
    assert first.groups == again.groups == {"esc10": [(0, 225)], "notes": [(225, 75)]}
    assert torch.equal(first.wave_N, again.wave_N) and torch.equal(first.labels_T2, again.labels_T2)
    assert first.wave_N.dtype == torch.float16
    assert len(first.wave_N) == 300 * HOP and len(first.labels_T2) == 300
    note = torch.from_numpy(harmonic(torch.full((RATE,), 57.0)))
    torch.testing.assert_close(first.wave_N[225 * HOP :].float(), note, atol=1e-4, rtol=1e-3)  # 11 bits
    assert not list((tmp_path / "cache").glob("*.partial"))


class TestBatches:
    def test_shapes_and_ranges(self, glide: Recordings) -> None:
        batches = Batches(glide, 16, FRAMES, seed=0)
        x_BN, midi_BT, confidence_BT = batches.draw()
        rows = batches.recorded + batches.tones + batches.noises
        assert (batches.recorded, batches.tones, batches.noises) == (8, 4, 1)
        assert x_BN.shape == (rows, FRAMES * HOP)
        assert midi_BT.shape == confidence_BT.shape == (rows, FRAMES)
        assert x_BN.dtype == torch.float32
        assert all(torch.isfinite(each).all() for each in (x_BN, midi_BT, confidence_BT))
        assert x_BN.abs().max() <= 0.98 + 1e-6
        assert confidence_BT.min() >= 0 and confidence_BT.max() <= 1

    def test_the_smallest_batch(self, glide: Recordings) -> None:
        assert Batches(glide, 1, FRAMES, seed=0).draw()[0].shape == (6, FRAMES * HOP)

    def test_labels_follow_the_sound_also_where_it_is_resampled(self, glide: Recordings) -> None:
        glide.groups.pop("notes")
        batches = Batches(glide, 64, FRAMES, seed=1)
        x_BN, midi_BT, confidence_BT = batches.record()
        off_BT = (heard_midi(x_BN) - midi_BT).abs()
        sure_BT = confidence_BT > 0
        # ends of the segment and of the clip, where a spectrum that was cut rings
        sure_BT[:, :4] = sure_BT[:, -4:] = False
        sure_BT[:, :-4] &= confidence_BT[:, 4:] > 0
        # frames are rounded: the glide moves 0.04 semitones in half a frame, at 7 semitones 0.06
        assert off_BT[sure_BT].max() < 0.1
        parts = midi_BT.view(batches.PARTS, -1, FRAMES)
        # half of the parts move: notes beyond the glide's are only there
        assert parts[0].max() <= 74 and parts[0].min() >= 50

    def test_behind_a_short_clip_there_is_nothing(self, glide: Recordings) -> None:
        glide.groups.pop("singing")
        x_BN, _, confidence_BT = Batches(glide, 8, FRAMES, seed=0).record()
        plain_BN = x_BN[: len(x_BN) // Batches.PARTS]
        assert (plain_BN[:, 20 * HOP :] == 0).all() and (plain_BN[:, : 20 * HOP] != 0).any()
        assert (confidence_BT[: len(plain_BN), 20:] == 0).all() and (confidence_BT[: len(plain_BN), :20] == 1).all()

    def test_collections_are_drawn_by_their_shares(self, glide: Recordings) -> None:
        batches = Batches(glide, 8, FRAMES, seed=0)
        assert dict(zip(batches.names, batches.shares, strict=True)) == pytest.approx({"notes": 0.6, "singing": 0.4})

    def test_tones_have_the_pitch_that_they_are_labelled_with(self, glide: Recordings) -> None:
        batches = Batches(glide, 8, FRAMES, seed=0)
        x_BN, midi_BT, confidence_BT = batches.tone(40)
        assert set(confidence_BT.unique().tolist()) == {0.0, 1.0}
        assert (confidence_BT == confidence_BT[:, :1]).all()  # of chords none, of others all
        for x_N, midi_T in zip(x_BN[confidence_BT[:, 0] == 1], midi_BT[confidence_BT[:, 0] == 1], strict=True):
            for t in (10, 32, 53):
                window_N = x_N[(t - 3) * HOP : (t + 4) * HOP] * torch.hann_window(7 * HOP)
                spectrum = torch.fft.rfft(window_N, 2**15).abs().square()
                harmonics = 440 * 2 ** ((midi_T[t] - 69) / 12) * torch.arange(1, 49)
                # nearly all of the power lies around the label's harmonics: 60 Hz for the window, 3 % for how far a
                # glide goes within it; noise is 40 dB down
                frequency = torch.fft.rfftfreq(2**15, 1 / RATE)
                near = ((frequency[:, None] - harmonics[None]).abs() < 60 + 0.03 * harmonics).any(1)
                assert spectrum[near].sum() > 0.9 * spectrum.sum()

    def test_noise_has_no_pitch(self, glide: Recordings) -> None:
        x_BN, _, confidence_BT = Batches(glide, 8, FRAMES, seed=0).noise(3)
        assert x_BN.shape == (3, FRAMES * HOP) and (confidence_BT == 0).all()
        assert (x_BN.square().mean(1).sqrt() - 0.08).abs().max() <= 0.071


def test_levels_are_set() -> None:
    x_BN = at_level(torch.randn(3, 1000), torch.tensor([[0.1], [0.2], [0.3]]))
    torch.testing.assert_close(x_BN.square().mean(1).sqrt(), torch.tensor([0.1, 0.2, 0.3]))
    assert torch.equal(at_level(torch.zeros(1, 10), torch.ones(1, 1)), torch.zeros(1, 10))


@pytest.mark.parametrize("count", [500, 1000, 1400])
def test_resampling_keeps_the_content(count: int) -> None:
    def tone(length: int) -> Tensor:
        return torch.sin(2 * math.pi * 20 * torch.arange(length) / length)[None]

    # whole periods: exact but for float32 transforms
    torch.testing.assert_close(resampled(tone(1000), count), tone(count), atol=1e-4, rtol=0)

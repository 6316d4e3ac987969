"""Arrays as people have them: scaled by their type, refused where their layout is another one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hooks import AudioFileError, Clip
from hooks.clip import as_clip
from hooks.errors import SoundWarning
from hooks.samples import as_floats, mixed_to_mono

FLOATS = 0.9 * torch.sin(torch.arange(2_000) * 0.05)[None] * torch.tensor([[1.0], [0.25]])


@pytest.mark.parametrize(
    ("dtype", "scale", "middle"),
    [("int8", 2**7, 0), ("int16", 2**15, 0), ("int32", 2**31, 0), (">i2", 2**15, 0), ("uint8", 2**7, 128)],
)
@pytest.mark.parametrize("how", ["Clip", "pair", "bare"])
def test_integers_are_scaled_by_their_type(dtype: str, scale: int, middle: int, how: str) -> None:
    integers = (FLOATS.double().numpy() * (scale - 1) + middle).round().astype(dtype)
    for samples in (integers, *([torch.from_numpy(integers)] if dtype != ">i2" else [])):
        clip = {"Clip": Clip, "pair": lambda x, rate: as_clip((x, rate)), "bare": as_clip}[how](samples, 16_000)
        # one step of the integers, and that full scale is not their largest number
        torch.testing.assert_close(clip.waveform, FLOATS, atol=2 / scale, rtol=0)


@pytest.mark.parametrize(
    "samples", [np.zeros(9, "int64"), np.zeros(9, bool), torch.zeros(9, dtype=torch.complex64), np.array(["a"])]
)
def test_other_types_are_refused(samples: np.ndarray | torch.Tensor) -> None:
    with pytest.raises(AudioFileError, match="samples of a sound are floats"):
        Clip(samples, 16_000)


def test_what_soundfile_reads_is_refused_with_the_way_to_turn_it() -> None:
    stereo = np.zeros((16_000, 2), "float32")
    with pytest.raises(
        AudioFileError, match=r"a: .* not \[16000, 2\], which looks like .* soundfile.read; turn it with .T"
    ):
        Clip(stereo, 16_000, "a")
    for source in (stereo, (stereo, 16_000), torch.from_numpy(stereo)):
        with pytest.raises(AudioFileError, match=r"turn it with .T"):
            as_clip(source, 16_000)
    assert Clip(stereo.T, 16_000).seconds == 1.0
    assert Clip(stereo[::-1].T, 16_000).waveform.shape == (2, 16_000)


@pytest.mark.parametrize("rate", [0, -1, 44.1, float("nan")])
def test_rates_that_are_none(rate: float) -> None:
    with pytest.raises(AudioFileError, match="is not a whole number of Hz, such as 44100"):
        Clip(np.zeros(9, "float32"), rate)  # type: ignore[arg-type]


def test_peaks_far_above_full_scale_are_told() -> None:
    with pytest.warns(
        SoundWarning, match="a: peaks at 20000, 86 dB above full scale .* divide them by their full scale"
    ):
        clip = Clip(20_000 * torch.sin(torch.arange(100) * np.pi / 2), 16_000, "a")
    assert clip.mixed(2).resampled(8_000).notes == clip.notes != ()
    # what an edit or a resampler makes of a loud sound is none of that
    assert Clip(torch.full((1, 100), 1.5), 16_000).notes == ()


class TestMono:
    def test_channels_that_cancel_are_not_mixed(self) -> None:
        tone = 0.3 * torch.sin(torch.arange(2_000) * 0.1)
        with pytest.warns(SoundWarning, match="cancel each other in a mono mix .which is silent.; channel 1"):
            clip = Clip(torch.stack([tone, -tone]), 16_000).mixed(1)
        assert torch.equal(clip.waveform[0], tone)
        with pytest.warns(SoundWarning, match=r"20 dB below them\); channel 2"):
            assert torch.equal(Clip(torch.stack([0.818 * tone, -tone]), 16_000).mixed(1).waveform[0], -tone)

    @given(channels=st.integers(2, 8), sounding=st.integers(1, 8), seed=st.integers(0, 99), alike=st.booleans())
    def test_unrelated_channels_and_silent_ones_are(self, channels: int, sounding: int, seed: int, alike: bool) -> None:
        generator = torch.Generator().manual_seed(seed)
        x_CN = torch.randn(1 if alike else channels, 8_000, generator=generator).expand(channels, -1).clone()
        x_CN[min(sounding, channels) :] = 0
        mono_1N, note = mixed_to_mono(x_CN)
        assert torch.equal(mono_1N, x_CN.mean(0, keepdim=True)) and note == ""


@given(st.integers(1, 8), st.integers(1, 50), st.sampled_from(["int16", "float32", "float64"]))
def test_level_channels_and_order_survive(channels: int, frames: int, dtype: str) -> None:
    rng = np.random.default_rng(frames)
    floats = rng.uniform(-1, 1, (channels, frames))
    samples = (floats * 32767).astype(dtype) if dtype == "int16" else floats.astype(dtype)
    torch.testing.assert_close(as_floats(samples), torch.tensor(floats, dtype=torch.float32), atol=2**-14, rtol=0)

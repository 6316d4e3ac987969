import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import attach
from hooks.model import Codec
from hooks.networks.source_filter import SourceFilter
from steer import SAE, Ablate, EditError, Scale, SteeredModel, Stream, open_model, wrap_model
from steer.errors import AudioSteerError
from steer.stream import Chunks, Plan, measured_lookahead_s, round_trip

RATE, HOP = 24_000, 320


@cache
def starter() -> SteeredModel:
    return SteeredModel(open_model("starter:wavtokenizer"), SAE.load("starter:wavtokenizer/latent"), check=False)


@cache
def sound_CN() -> Tensor:
    """3 s that fade in."""
    count = round(3.0 * RATE)
    noise = torch.randn(1, count, generator=torch.Generator().manual_seed(1))
    tone = torch.sin(2 * torch.pi * 220 * torch.arange(count) / RATE)
    return (0.05 * noise + 0.2 * tone) * torch.linspace(0, 1, count)


def streamed(stream: Stream, audio_CN: Tensor, size: int = 1111) -> Tensor:
    return torch.cat([*map(stream.push, audio_CN.split(size, dim=1)), stream.finish()], dim=1)


def small_encodec(causal: bool) -> Codec:
    transformers = pytest.importorskip("transformers", reason="the models extra is not installed")
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "num_filters": 4, "codebook_dim": 16, "codebook_size": 64}
    config = transformers.EncodecConfig(use_causal_conv=causal, target_bandwidths=[1.5], **sizes)
    model = transformers.EncodecModel(config)
    for name, weight in model.named_parameters():
        if name.endswith("weight.original0"):  # of untrained layers biases are nearly all that comes out
            weight.data.mul_(2.0)
    codec = wrap_model(model)
    assert isinstance(codec, Codec)
    codec.quantize = False
    return codec


class Delayed(Codec):
    """Adds to each sample the one `ahead` samples later, and says what it was asked."""

    def __init__(self, ahead: int) -> None:
        super().__init__(torch.nn.Identity(), name="delayed", sample_rate=1000)
        self.hop_length, self.context_s, self.ahead = 10, 0.1, ahead

    def run(self, audio_BCN: Tensor) -> Tensor:
        return audio_BCN + torch.nn.functional.pad(audio_BCN[..., self.ahead :], (0, self.ahead))


@pytest.mark.parametrize("edit", [None, Scale(list(range(20)), 2.0), Ablate([1, 2, 3], during=(0.9, 2.2))])
def test_blocks_give_what_the_whole_gives(edit: Any) -> None:
    """But for what is left of the LSTM's memory after a second, and what counts as unheard: 1e-4 of the peak each."""
    steered, audio_CN = starter(), sound_CN()
    edits = [edit] if edit else []
    with steered.edit(*edits):
        whole_CN = round_trip(steered.model, audio_CN)
        for size in (333, 10**6):
            joined_CN = streamed(Stream(steered, block_s=0.5), audio_CN, size)
            assert joined_CN.shape == audio_CN.shape
            assert (joined_CN - whole_CN).abs().max() < 5e-4 * whole_CN.abs().max()


def test_latency_holds() -> None:
    stream = Stream(starter(), block_s=0.3)
    assert 0.3 < stream.latency_s < 0.3 + stream.lookahead_s + 3 * HOP / RATE
    given = taken = 0
    for block_CN in sound_CN().split(777, dim=1):
        given += block_CN.shape[1]
        taken += stream.push(block_CN).shape[1]
        assert given - taken <= stream.latency_s * RATE
    assert taken + stream.finish().shape[1] == given


@pytest.mark.parametrize("ahead", [0, 1, 7, 64])
def test_lookahead_is_measured(ahead: int) -> None:
    assert measured_lookahead_s(Delayed(ahead)) == pytest.approx(ahead / 1000)


def test_a_codec_that_hears_everything_is_refused() -> None:
    class Whole(Delayed):
        def run(self, audio_BCN: Tensor) -> Tensor:
            return audio_BCN + audio_BCN.mean(-1, keepdim=True)

    with pytest.raises(AudioSteerError, match="hears the whole sound at once"):
        Stream(Whole(0))


@pytest.mark.parametrize("causal", [True, False])
def test_a_causal_codec_needs_a_frame_only(causal: bool) -> None:
    codec = small_encodec(causal)
    stream = Stream(codec, block_s=0.2)
    assert (stream.lookahead_s == 0) == causal
    assert (stream.latency_s == pytest.approx(0.2 + HOP / RATE)) == causal
    whole_CN = round_trip(codec, sound_CN())
    assert (streamed(stream, sound_CN()) - whole_CN).abs().max() < 1e-3 * whole_CN.abs().max()


def test_the_residual_is_kept() -> None:
    steered, audio_CN = starter(), sound_CN()
    assert torch.equal(streamed(Stream(steered, keep_residual=True), audio_CN), audio_CN)
    with steered.edit(Scale(list(range(20)), 2.0)):
        kept_CN = streamed(Stream(steered, keep_residual=True), audio_CN)
        edited_CN = round_trip(steered.model, audio_CN)
    wanted_CN = audio_CN + edited_CN - round_trip(steered.model, audio_CN)
    assert (wanted_CN - audio_CN).abs().max() > 1e-3
    assert (kept_CN - wanted_CN).abs().max() < 1e-3 * wanted_CN.abs().max()
    handle = steered.apply(Scale(list(range(20)), 2.0))
    assert torch.equal(streamed(Stream(steered, keep_residual=True), audio_CN), kept_CN)
    handle.remove()


def test_what_changes_while_it_runs_fades_in() -> None:
    codec = Delayed(0)
    stream, blocks = Stream(codec, block_s=0.1), []
    for gain in (1.0, 3.0):
        codec.run = partial(torch.mul, torch.tensor(gain))  # type: ignore[method-assign]
        blocks.append(stream.push(torch.ones(1, 200)))
    joined_N = torch.cat([*blocks, stream.finish()], dim=1)[0]
    assert set(joined_N[:100].tolist()) == {1.0}
    assert joined_N[-1] == 3.0
    # from 1 to 3 in the ten samples of a fade
    assert joined_N.diff().abs().max() == pytest.approx(2 / 9)


def test_channels_run_beside_each_other() -> None:
    left, right = sound_CN(), sound_CN().flip(1)
    both = streamed(Stream(starter(), block_s=0.5), torch.cat([left, right]))
    alone = streamed(Stream(starter(), block_s=0.5), right)
    # a batch of two rounds in another order
    assert (both[1] - alone[0]).abs().max() < 1e-5


def test_short_sounds_and_none() -> None:
    assert streamed(Stream(starter()), sound_CN()[:, :50]).shape == (1, 50)
    assert Stream(starter()).finish().shape == (1, 0)


def test_edits_around_do_not_reach_the_measurement() -> None:
    steered = starter()
    plain = Stream(steered).lookahead_s
    with steered.edit(Scale(list(range(100)), 0.0)):
        assert Stream(steered).lookahead_s == plain


class TestRunningPhase:
    """A codec whose output has phases of its own, with the pitch of its latent moved by 4 semitones."""

    BLOCK_S = 0.5

    def tone_CN(self) -> Tensor:
        phase = 2 * math.pi * 150 * torch.arange(round(3.3 * RATE)) / RATE
        return 0.1 * torch.stack([(k * phase + k * k).sin() / k for k in range(1, 30)]).sum(0)[None]

    def moved(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD.clone()
        x_BTD[..., 0] += 4 / 6
        return x_BTD

    def codec(self, source_filter: SourceFilter) -> Codec:
        codec = wrap_model(source_filter)
        assert isinstance(codec, Codec)
        return codec

    def joins(self, stream: Stream) -> list[int]:
        return list(range(stream.plan.core, round(3.3 * RATE), stream.plan.core))

    def test_chunks_are_the_whole(self, source_filter: SourceFilter) -> None:
        codec, audio_CN = self.codec(source_filter), self.tone_CN()
        stream = Stream(codec, self.BLOCK_S)
        assert len(self.joins(stream)) >= 5
        with attach(codec.module, codec.site("latent"), self.moved):
            whole_CN = round_trip(codec, audio_CN)
            joined_CN = streamed(stream, audio_CN)
        # what counts as unheard, 1e-4 of the peak, in the pitch moves phases of high harmonics: 3e-4 was measured
        assert (joined_CN - whole_CN).abs().max() < 1e-3 * whole_CN.abs().max()

    def test_joins_have_neither_dip_nor_click(self, source_filter: SourceFilter) -> None:
        codec, audio_CN = self.codec(source_filter), self.tone_CN()
        stream = Stream(codec, self.BLOCK_S)
        with attach(codec.module, codec.site("latent"), self.moved):
            whole_CN, joined_CN = round_trip(codec, audio_CN), streamed(stream, audio_CN)
        width = round(0.005 * RATE)
        for at in self.joins(stream):
            part = slice(at - 8 * width, at + 8 * width)
            levels = [20 * s[0, part].view(-1, width).square().mean(1).sqrt().log10() for s in (joined_CN, whole_CN)]
            assert (levels[0] - levels[1]).abs().max() < 1.0

    def test_it_is_the_carry_that_joins_them(self, source_filter: SourceFilter) -> None:
        codec, audio_CN = self.codec(source_filter), self.tone_CN()
        plan = Plan.of(codec, self.BLOCK_S)
        carry: dict[str, Any] = {}
        whole_CN = round_trip(codec, audio_CN)
        outputs = []
        for shared in (carry, None):
            chunks = Chunks(plan, RATE, partial(round_trip, codec, carry=shared))
            outputs.append(torch.cat([*chunks.push(audio_CN), *chunks.finish()], dim=1))
        peak = whole_CN.abs().max()
        assert (outputs[0] - whole_CN).abs().max() < 1e-3 * peak
        assert (outputs[1] - whole_CN).abs().max() > 0.1 * peak
        assert len(carry["phases"]) == 1  # as much as one chunk, however long the sound

    def test_plain_and_edited_chunks_have_phases_of_their_own(self, source_filter: SourceFilter) -> None:
        codec, audio_CN = self.codec(source_filter), self.tone_CN()
        assert torch.equal(streamed(Stream(codec, self.BLOCK_S, keep_residual=True), audio_CN), audio_CN)
        with attach(codec.module, codec.site("latent"), self.moved):
            kept_CN = streamed(Stream(codec, self.BLOCK_S, keep_residual=True), audio_CN)
            edited_CN = round_trip(codec, audio_CN)
        wanted_CN = audio_CN + edited_CN - round_trip(codec, audio_CN)
        assert (kept_CN - wanted_CN).abs().max() < 2e-3 * edited_CN.abs().max()  # twice that of a round trip

    def test_channels_have_phases_of_their_own(self, source_filter: SourceFilter) -> None:
        codec = self.codec(source_filter)
        stereo_CN = torch.cat([self.tone_CN(), self.tone_CN().flip(1)])
        both_CN = streamed(Stream(codec, self.BLOCK_S), stereo_CN)
        for channel in range(2):
            whole_CN = round_trip(codec, stereo_CN[channel : channel + 1])
            assert (both_CN[channel] - whole_CN[0]).abs().max() < 1e-3 * whole_CN.abs().max()


def wrong_block(size: tuple[int, ...]) -> Callable[[], object]:
    def push() -> None:
        stream = Stream(Delayed(0))
        stream.push(torch.zeros(2, 10))
        stream.push(torch.zeros(*size))

    return push


def overflow() -> None:
    stream = Stream(Delayed(0), block_s=0.1)
    stream.push(torch.full((1, 1000), torch.inf))


def after_the_end() -> None:
    stream = Stream(Delayed(0))
    stream.finish()
    stream.push(torch.zeros(1, 10))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (wrong_block((1, 10)), r"\[2, samples\], not \[1, 10\]"),
        (wrong_block((10,)), r"\[2, samples\], not \[10\]"),
        (overflow, "overflow near 0.0 s"),
        (after_the_end, "finished"),
    ],
)
def test_what_cannot_be_streamed(call: Callable[[], object], said: str) -> None:
    with pytest.raises(EditError, match=said):
        call()


@pytest.mark.parametrize("options", [{"block_s": 0.0}, {"block_s": -1.0}, {"lookahead_s": -0.1}])
def test_times_that_make_no_sense(options: dict[str, float]) -> None:
    with pytest.raises(AudioSteerError, match="has to be above 0"):
        Stream(Delayed(0), **options)
    with pytest.raises(AudioSteerError, match="is not a codec"):
        Stream(wrap_model(torch.nn.Linear(2, 2)))  # type: ignore[arg-type]


def test_plan_of_a_codec_on_its_grid() -> None:
    codec = Delayed(0)
    assert Plan.of(codec, 0.123) == Plan(120, 110, 110, 10)
    assert Plan.of(codec, 0.123, ahead_s=0.015) == Plan(120, 110, 30, 10)
    assert Plan.of(codec, 0.001, ahead_s=0.0) == Plan(10, 110, 10, 10)

"""Conditional edits in both libraries: windows, beams, temperatures, batches, decoder sites; where a gate is shut the
transcript is that of the model.

A tiny Whisper with random weights; gates read the activation, of which the sounds here are told apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import at_time, sound_until
from hooks.capture import Recorder
from hooks.families.whisper import Whisper
from hooks.families.whisper.hf import WhisperTransformers
from hooks.transcript import Transcript
from steer import SAE, Ablate, AddDirection, EditError, Gate, GateProbe, SteeredModel, gate_logits
from tests.hooks.families.whisper.test_whisper import FAST, WIDTH, build, mel_of, noise

PUSH = AddDirection(20 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(8)))
LONG = 47.0
"""Two windows."""


@pytest.fixture(params=["package", "transformers"])
def model(request: pytest.FixtureRequest) -> Iterator[Whisper]:
    model = build(request.param)
    yield model
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.module.modules())


@pytest.fixture
def steered(model: Whisper) -> SteeredModel:
    torch.manual_seed(1)
    saes = {site: SAE(WIDTH, 64, "relu").requires_grad_(False) for site in ("encoder.0", "encoder.1", "decoder.1")}
    return SteeredModel(model, saes, check=False)


def gate(site: str = "encoder.1", scope: Any = "clip", threshold: float = 0.0) -> Gate:
    weights = torch.randn(WIDTH, generator=torch.Generator().manual_seed(4))
    return Gate(GateProbe(weights, site=site), threshold, scope)


def tokens(one: Transcript) -> list[list[int]]:
    return [list(segment["tokens"]) for segment in one.segments]


def text(steered: SteeredModel, sound: Tensor, **options: Any) -> list[list[int]]:
    return tokens(steered.transcribe(sound, **FAST[type(steered.model)], language="en", **options))


def threshold_between(steered: SteeredModel, site: str, sounds: list[Tensor]) -> tuple[float, list[bool]]:
    """A threshold in the middle of the widest gap between the sounds' logits, and which of them are above."""
    logits = torch.cat([gate_logits(steered, gate(site), sound) for sound in sounds])
    ordered = logits.sort().values
    place = int(ordered.diff().argmax())
    middle = float(ordered[place : place + 2].mean())
    return middle, (logits > middle).tolist()


SITES = [("encoder.1", "encoder.0"), ("encoder.1", "encoder.1"), ("encoder.0", "encoder.1"), ("encoder.0", "decoder.1")]
"""Where the gate is, and where the edit."""


@pytest.mark.parametrize(
    ("scope", "at", "site"),
    [*(("clip", *sites) for sites in SITES), *((scope, *sites) for scope in ("window", 1.0) for sites in SITES[::3])],
)
def test_shut_and_open(steered: SteeredModel, scope: Any, at: str, site: str) -> None:
    sound, edit = noise(LONG), Ablate(range(64)) if site == "decoder.1" else PUSH
    if site == "decoder.1" and scope == 1.0:
        with pytest.raises(EditError, match="an edit there takes a gate by clip or window"):
            steered.changes(edit, site=site, when=gate(at, scope))
        return
    plain = text(steered, sound)
    with steered.edit(edit, site=site):
        always = text(steered, sound)
    assert plain != always
    with steered.edit(edit, site=site, when=gate(at, scope, threshold=1e4)):
        assert text(steered, sound) == plain
    with steered.edit(edit, site=site, when=gate(at, scope, threshold=-1e4)):
        assert text(steered, sound) == always


@pytest.mark.parametrize(("at", "site"), SITES)
def test_clips_of_a_batch_are_decided_each_by_its_own(steered: SteeredModel, at: str, site: str) -> None:
    sounds = [0.1 * noise(2.0, 2), 3 * noise(1.0, 3), noise(LONG)]
    threshold, opens = threshold_between(steered, at, sounds)
    assert set(opens) == {True, False}
    edit = Ablate(range(64)) if site == "decoder.1" else PUSH
    options = {**FAST[type(steered.model)], "language": "en"}
    plain = [text(steered, sound) for sound in sounds]
    with steered.edit(edit, site=site):
        always = [text(steered, sound) for sound in sounds]
    with steered.edit(edit, site=site, when=gate(at, threshold=threshold)):
        alone = [text(steered, sound) for sound in sounds]
        together = [tokens(one) for one in steered.transcribe_all(sounds, **options)]
    assert alone == [always[n] if one else plain[n] for n, one in enumerate(opens)]
    assert together == alone


def test_windows_are_decided_each_by_its_own(steered: SteeredModel) -> None:
    """Loud and soft for half a minute each: open in one of both."""
    sound = torch.cat([noise(30.0), 0.05 * noise(16.0, seed=2)])
    threshold, (first, second) = threshold_between(steered, "encoder.1", [sound[: 30 * 16_000], sound[30 * 16_000 :]])
    assert first != second
    x_BTD = steered.run(sound[None, None])
    with steered.edit(PUSH, site="encoder.norm"):
        always_BTD = steered.run(sound[None, None])
    for at in ("encoder.0", "encoder.1"):
        between = (
            threshold
            if at == "encoder.1"
            else threshold_between(steered, at, [sound[: 30 * 16_000], sound[30 * 16_000 :]])[0]
        )
        with steered.edit(PUSH, site="encoder.norm", when=gate(at, "window", threshold=between)):
            found_BTD = steered.run(sound[None, None])
        for part in (slice(0, 1500), slice(1500, None)):
            same = [torch.equal(found_BTD[:, part], one[:, part]) for one in (x_BTD, always_BTD)]
            assert sorted(same) == [False, True]


@pytest.mark.parametrize(
    "options", [{"beam_size": 3}, {"temperature": (0.0, 0.5, 1.0), "compression_ratio_threshold": 0.0}]
)
@pytest.mark.parametrize("site", ["encoder.0", "decoder.1"])
def test_beams_and_temperatures(options: dict[str, Any], site: str) -> None:
    """With a threshold of 0 every text is too repetitive: all temperatures are tried, and each encodes again."""
    model = build("package")
    torch.manual_seed(1)
    steered = SteeredModel(model, {"decoder.1": SAE(WIDTH, 64, "relu").requires_grad_(False)}, check=False)
    edit, sound = Ablate(range(64)) if site == "decoder.1" else PUSH, noise(1.5)

    def heard() -> list[list[int]]:
        torch.manual_seed(0)
        together = steered.transcribe_all([sound], seed=0, language="en", sample_len=5, **options)
        torch.manual_seed(0)
        return tokens(steered.transcribe(sound, language="en", sample_len=5, **options)) + tokens(together[0])

    plain = heard()
    with steered.edit(edit, site=site):
        always = heard()
    assert plain != always
    scopes = ("clip", "window") if site == "encoder.0" else ("window", "clip")
    for threshold, expected, scope in ((1e4, plain, scopes[0]), (-1e4, always, scopes[1])):
        with steered.edit(edit, site=site, when=gate("encoder.1", scope, threshold=threshold)):
            assert heard() == expected


def test_timestamps_and_languages(steered: SteeredModel) -> None:
    """What is asked before the first window, and segments that seek: nothing of it moves where the gate is shut."""
    sound = noise(33.0)
    extra = (
        {"without_timestamps": False}
        if not isinstance(steered.model, WhisperTransformers)
        else {"return_timestamps": True}
    )
    options = FAST[type(steered.model)] | extra
    plain = steered.transcribe(sound, **options)
    with steered.edit(PUSH, site="encoder.0", when=gate(threshold=1e4)):
        found = steered.transcribe(sound, **options)
    assert (tokens(found), found.language) == (tokens(plain), plain.language)


def test_both_libraries_decide_alike() -> None:
    """From one input: what `run` gives of the same weights."""
    sounds = [noise(2.0, seed) * 4.0**seed for seed in range(3)]
    # what a transcript of it passes is what `run` passes in transformers
    threshold, opens = threshold_between(SteeredModel(build("transformers"), check=False), "encoder.1", sounds)
    assert set(opens) == {True, False}
    found = []
    for kind in ("package", "transformers"):
        steered = SteeredModel(build(kind), check=False)
        with steered.edit(PUSH, site="encoder.0", when=gate(threshold=threshold)):
            found.append(torch.cat([steered.run(sound[None, None]) for sound in sounds]))
    # their spectrograms round otherwise, through two blocks of large random weights
    torch.testing.assert_close(found[0], found[1], atol=2e-2, rtol=1e-3)


def test_calls_of_the_library_are_not_told_the_sound() -> None:
    """Padding would be pooled: that is refused, and not done."""
    model = build("package")
    steered = SteeredModel(model, check=False)
    mel = mel_of(noise(2.0))[None]
    with steered.edit(PUSH, site="encoder.1", when=gate()), pytest.raises(EditError, match="where the sound ends"):
        model.module.encoder(mel)
    with (
        steered.edit(PUSH, site="encoder.1", when=gate(scope="window")),
        pytest.raises(EditError, match="where the sound ends"),
    ):
        model.module.encoder(mel)
    with (
        steered.edit(PUSH, site="encoder.1", when=gate(scope="window", threshold=-1e4)),
        at_time(0.0),
        sound_until(2.0),
    ):
        found = model.module.encoder(mel)
    with steered.edit(PUSH, site="encoder.1"):
        assert torch.equal(model.module.encoder(mel), found)


def test_training_through_an_open_gate(model: Whisper) -> None:
    """`logits` says what the sound is: a vector behind a gate gets its gradients there, and nowhere else."""
    vector = torch.ones(WIDTH, requires_grad=True)
    steered = SteeredModel(model, check=False)
    for threshold in (-1e4, 1e4):
        with steered.edit(AddDirection(vector), site="encoder.0", when=gate("encoder.1", threshold=threshold)):
            logits = model.logits(noise(1.0)[None], torch.tensor([[50258, 50359]]))
        if threshold > 0:
            assert not logits.requires_grad or torch.autograd.grad(logits.sum(), vector, allow_unused=True)[0] is None
        else:
            (gradient,) = torch.autograd.grad(logits.square().sum(), vector)
            assert gradient.abs().sum() > 0


def test_a_sound_is_passed_as_a_transcript_passes_it(model: Whisper) -> None:
    """What gates are fitted on is what they meet: the same windows, filled up alike."""
    options: dict[str, Any] = FAST[type(model)] | {"language": "en"}
    calls = (lambda one: model.pass_through(model.prepare(one)), lambda one: model.transcribe(one, **options))
    for seconds in (1.3, 1.0049, 30.0, LONG):  # 1.0049 s are 51 frames, of whose spectrogram 50 are there
        seen = []
        for call in calls:
            with Recorder(model.module, [model.sites["encoder.1"]]) as recorder:
                call(noise(seconds))
                # where the second window of transformers' long way is, time stamps decide
                seen.append(recorder.take()["encoder.1"][:, :1500])
        assert torch.equal(*seen)

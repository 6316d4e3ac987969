"""Both implementations with the same small random weights: width 32, two blocks each side, the published vocabulary."""

from __future__ import annotations

import copy
import importlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hooks import Clip, ModelError, at_time, attach, capture, open_model, wrap_model, write_clip
from hooks.capture import Recorder
from hooks.families.whisper import Whisper, WhisperPackage
from hooks.families.whisper.export import to_transformers, tokenizer_of
from hooks.families.whisper.hf import WhisperTransformers
from hooks.families.whisper.options import compression_ratio, within
from hooks.families.whisper.package import start_numba
from hooks.model import Transcriber
from hooks.timing import current_time, real_frames
from hooks.transcript import Transcript
from steer import SAE, Ablate, EditError, Shift, SteeredModel

whisper = pytest.importorskip("whisper", reason="extra whisper")
transformers = pytest.importorskip("transformers", reason="extra whisper")

WIDTH, LAYERS, VOCABULARY = 32, 2, 51_865
SITES = ("encoder.conv", "encoder.0", "encoder.1", "encoder.norm", "decoder.0", "decoder.1")
FAST: dict[type, dict[str, Any]] = {
    WhisperPackage: {"sample_len": 6, "temperature": 0.0, "without_timestamps": True},
    WhisperTransformers: {"max_new_tokens": 6},
}
"""Random weights never end a sentence: six words a window are enough."""


@cache
def package_module() -> nn.Module:
    torch.manual_seed(0)
    module = whisper.model.Whisper(
        whisper.model.ModelDimensions(80, 1500, WIDTH, 2, LAYERS, VOCABULARY, 448, WIDTH, 2, LAYERS)
    )
    for weight in module.parameters():
        if weight.ndim > 1:
            # large enough for what is heard to decide what is written
            nn.init.normal_(weight, std=0.3)
    return module


@cache
def tokenizer() -> Any:
    return tokenizer_of(package_module())


@cache
def transformers_module() -> nn.Module:
    return to_transformers(package_module())


def build(kind: str) -> Whisper:
    model = wrap_model(package_module() if kind == "package" else transformers_module())
    assert isinstance(model, Whisper)
    if isinstance(model, WhisperTransformers):
        model.tokenizer = tokenizer()
    return model


@pytest.fixture
def package() -> WhisperPackage:
    model = build("package")
    assert isinstance(model, WhisperPackage)
    return model


@pytest.fixture
def hf() -> WhisperTransformers:
    model = build("transformers")
    assert isinstance(model, WhisperTransformers)
    return model


@pytest.fixture(params=["package", "transformers"])
def model(request: pytest.FixtureRequest) -> Whisper:
    return build(request.param)


@pytest.fixture
def sae() -> SAE:
    return SAE(WIDTH, 64, "relu").requires_grad_(False)


def noise(seconds: float, seed: int = 0) -> Tensor:
    """Noise whose level and colour change all the time, so that no two windows sound alike."""
    samples = torch.randn(round(seconds * 16_000), generator=torch.Generator().manual_seed(seed))
    level = torch.linspace(0.02, 0.3, len(samples))
    return level * (samples + torch.sin(torch.linspace(0, 40.0, len(samples)).square()))


def steer(model: Whisper, sae: SAE, site: str) -> SteeredModel:
    # the proof that a site has a say is SteeredModel's own, and costs passes
    return SteeredModel(model, sae, site, check=False)


def mel_of(audio_N: Tensor) -> Tensor:
    return whisper.log_mel_spectrogram(whisper.pad_or_trim(audio_N))


def words(model: Whisper, audio_N: Tensor, **options: Any) -> list[int]:
    """All tokens of a transcript."""
    transcript = model.transcribe(audio_N, **(FAST[type(model)] | {"language": "en"} | options))
    return [token for segment in transcript.segments for token in segment["tokens"]]


# --- sites ---


def test_every_site_is_as_declared(model: Whisper) -> None:
    assert isinstance(model, Transcriber)
    assert tuple(model.sites) == SITES
    seen = next(capture(model, [noise(2.0)], SITES)).activations
    for name, x_BTD in seen.items():
        site = model.sites[name]
        site.measured(x_BTD)
        assert (site.width, site.layout) == (WIDTH, "BTD")
        assert site.frame_rate == (50.0 if name.startswith("encoder") else None)
        # the decoder's single frame is the token that starts a transcript
        assert x_BTD.shape[0] == 1 and (x_BTD.shape[1] == 1 if name.startswith("decoder") else x_BTD.shape[1] >= 100)


@torch.no_grad()
def test_sites_are_the_librarys_hidden_states(hf: WhisperTransformers, package: WhisperPackage) -> None:
    audio_N = noise(30.0)
    features = hf.feature_extractor(audio_N.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    own = hf.module.model.encoder(features, output_hidden_states=True)
    for model in (hf, package):
        seen = next(capture(model, [audio_N], SITES[:4])).activations
        # float32, activations of size 10, and two ways of computing the same spectrogram: to 1e-5 of their size
        close = {"atol": 1e-4, "rtol": 1e-5} if model is package else {"atol": 1e-5, "rtol": 1e-5}
        torch.testing.assert_close(seen["encoder.conv"], own.hidden_states[0], **close)
        torch.testing.assert_close(seen["encoder.0"], own.hidden_states[1], **close)
        torch.testing.assert_close(seen["encoder.norm"], own.hidden_states[2], **close)
        # the last block's own output is not in hidden_states: its norm is
        normed = hf.module.model.encoder.layer_norm(seen["encoder.1"])
        torch.testing.assert_close(normed, own.last_hidden_state, **close)
        assert not torch.allclose(seen["encoder.1"], own.last_hidden_state, atol=0.1)


def test_the_decoder_is_run_only_where_it_is_wanted(model: Whisper) -> None:
    calls: list[str] = []
    theirs = model.module.get_submodule(model.decoder_path).register_forward_hook(lambda *a: calls.append("decoder"))
    audio_BCN = model.prepare(noise(1.0))
    assert model.run(audio_BCN).shape == (1, 50, WIDTH)
    with attach(model.module, model.site("encoder.1"), lambda x_BTD: None):
        model.run(audio_BCN)
    assert calls == []
    with attach(model.module, model.site("decoder.1"), lambda x_BTD: None):
        assert model.run(audio_BCN).shape == (1, 1, VOCABULARY)
    assert calls == ["decoder"]
    theirs.remove()


def test_hidden_states_asked_for_before_do_not_count_as_a_wish_for_the_decoder(hf: WhisperTransformers) -> None:
    tokens_BL = torch.tensor([[50_258]])
    hf.module(mel_of(noise(1.0))[None], decoder_input_ids=tokens_BL, output_hidden_states=True)
    assert hf.run(hf.prepare(noise(1.0))).shape == (1, 50, WIDTH)


@pytest.mark.parametrize("site", ["decoder.0", "decoder.1"])
def test_what_another_thread_attaches_to_the_decoder_is_no_wish_of_this_one(
    model: Whisper, sae: SAE, site: str
) -> None:
    steered = SteeredModel(model, {site: sae, "encoder.1": sae}, check=False)
    audio_BCN = model.prepare(noise(1.0))
    plain = model.run(audio_BCN)
    assert plain.shape == (1, 50, WIDTH)
    (captured,) = capture(model, [noise(1.0)], ["encoder.norm"])
    with ThreadPoolExecutor(1) as other:
        ours = steered.edit(Ablate([1]), site=site)
        with ours, steered.edit(Ablate([3]), site="encoder.1"):
            # edits are of this thread; the other one runs and captures as if they were not there
            assert torch.equal(other.submit(model.run, audio_BCN).result(), plain)
            (seen,) = other.submit(lambda: list(capture(model, [noise(1.0)], ["encoder.norm"]))).result()
            assert torch.equal(seen.activations["encoder.norm"], captured.activations["encoder.norm"])
            assert model.run(audio_BCN).shape == (1, 1, VOCABULARY)
        stream = capture(model, [noise(1.0)], [site])
        with Recorder(model.module, [model.site(site)]):
            assert torch.equal(other.submit(model.run, audio_BCN).result(), plain)
        assert next(stream).activations[site].shape == (1, 1, WIDTH)
    assert torch.equal(model.run(audio_BCN), plain)


# --- time and padding ---


def test_logits_along_a_transcript_are_the_same_in_both_and_have_gradients(
    package: WhisperPackage, hf: WhisperTransformers
) -> None:
    tokens_BL, audio_BN = torch.tensor([[50_258, 50_259, 50_359, 50_363, 440, 7]]), noise(1.0)[None]
    found = []
    for model in (package, hf):
        push_D = torch.zeros(WIDTH, requires_grad=True)
        with attach(model.module, model.site("encoder.0"), lambda x_BTD, push_D=push_D: x_BTD + push_D):
            logits_BLV = model.logits(audio_BN, tokens_BL)
        assert logits_BLV.shape == (1, 6, VOCABULARY) and model.vocabulary == VOCABULARY
        (gradient_D,) = torch.autograd.grad(logits_BLV[0, -1, 440], push_D)
        assert gradient_D.any()
        found.append((logits_BLV.detach(), gradient_D))
        with pytest.raises(ValueError, match="more than a window"):
            model.logits(torch.zeros(1, 30 * 16_000 + 1), tokens_BL)
    # two ways of computing a spectrogram and attention, and weights of size 0.3
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=2e-3)


def test_run_gives_what_the_decoder_reads_without_padding(model: Whisper) -> None:
    audio_N = noise(35.013)
    encoded_BTD = model.run(model.prepare(audio_N))
    assert encoded_BTD.shape == (1, model.frames_of(35.013), WIDTH)
    assert model.frames_of(35.013) == 1751
    # 1.1 * 50 is a little more than 55 in floating point
    assert [model.frames_of(seconds) for seconds in (0.001, 1.0, 1.1, 30.0)] == [1, 50, 55, 1500]
    encoder = model.module.get_submodule(model.encoder_path)
    with torch.no_grad():
        own = encoder(mel_of(audio_N[480_000:])[None])
    own = own if isinstance(own, Tensor) else own.last_hidden_state
    # transformers' spectrogram is equal to the package's to 1e-5, and large weights follow
    torch.testing.assert_close(encoded_BTD[:, 1500:], own[:, :251], atol=1e-4, rtol=1e-5)


def test_a_batch_is_its_rows(model: Whisper) -> None:
    rows = torch.stack([noise(3.0), 0.1 * noise(3.0, seed=1)])[:, None]
    batch = model.run(rows)
    for row, encoded_TD in zip(rows, batch, strict=True):
        # other sizes of matrices, other order of sums
        torch.testing.assert_close(model.run(row[None])[0], encoded_TD, atol=1e-5, rtol=1e-5)


def watch(model: Whisper, seen: list[tuple[float | None, int]]) -> Any:
    def note(x_BTD: Tensor) -> None:
        seen.append((current_time(), real_frames(x_BTD.shape[1], 50.0)))

    return attach(model.module, model.site("encoder.0"), note)


def test_windows_know_their_time_and_their_padding(model: Whisper) -> None:
    seen: list[tuple[float | None, int]] = []
    with watch(model, seen):
        model.run(model.prepare(noise(33.0)))
        with at_time(100.0):
            model.run(model.prepare(noise(2.0)))
        list(capture(model, [noise(33.0)], ["encoder.0"]))
    assert seen == [(0.0, 1500), (30.0, 150), (100.0, 100), (0.0, 1500), (30.0, 150)]
    assert real_frames(1500, 50.0) == 1500


LONG: dict[type, dict[str, Any]] = {
    WhisperPackage: {"sample_len": 12, "temperature": 0.0},
    WhisperTransformers: {"max_new_tokens": 12},
}


def test_a_long_transcript_knows_where_its_windows_start(model: Whisper) -> None:
    seen: list[tuple[float | None, int]] = []
    with watch(model, seen), at_time(1000.0):
        transcript = model.transcribe(noise(65.0), language=None, **LONG[type(model)])
    # the language is detected on the first window; then windows follow each other by the time stamps in the text
    assert seen[:2] == [(1000.0, 1500), (1000.0, 1500)]
    starts = [start_s for start_s, _ in seen[1:] if start_s is not None]
    assert len(starts) > 2 and starts == sorted(set(starts)) and starts[-1] < 1065
    assert [frames for _, frames in seen[1:]] == [min(1500, round(50 * (1065 - start))) for start in starts]
    # what is written of a window is not before it
    assert transcript.segments[0]["start"] >= 0.0 and max(starts) - 1000 <= transcript.segments[-1]["start"]


def test_clips_of_a_recording_have_their_time(package: WhisperPackage) -> None:
    seen: list[tuple[float | None, int]] = []
    with watch(package, seen):
        words(package, noise(20.0), clip_timestamps=[2.5, 4.0, 12.0, 13.0])
    assert seen == [(2.5, 75), (12.0, 50)]


def test_progress_is_still_told(hf: WhisperTransformers) -> None:
    told: list[list[int]] = []
    words(hf, noise(31.0), monitor_progress=lambda frames_B2: told.append(frames_B2[0].tolist()))
    assert told[0] == [0, 3100]


def test_during_is_in_seconds_of_the_file(model: Whisper, sae: SAE) -> None:
    steered, site = steer(model, sae, "encoder.1"), model.site("encoder.1")
    before: list[Tensor] = []
    changed_s: list[float] = []

    def compare(after_BTD: Tensor) -> None:
        start_s = current_time()
        assert start_s is not None
        frames = (after_BTD != before.pop()).any(2)[0].nonzero()[:, 0]
        changed_s.extend(start_s + (int(frame) + 0.5) / 50 for frame in frames)

    with (
        attach(model.module, site, lambda x_BTD: before.append(x_BTD.clone())),
        steered.edit(Shift(torch.ones(64), during=(33.0, 34.0))),
        attach(model.module, site, compare),
    ):
        model.transcribe(noise(62.0), language="en", **LONG[type(model)])
    assert len(changed_s) >= 50
    assert 33.0 <= min(changed_s) < 33.02 and 33.98 < max(changed_s) < 34.0


def test_padding_can_be_left_alone(model: Whisper, sae: SAE) -> None:
    steered, site = steer(model, sae, "encoder.1"), model.site("encoder.1")
    seen: list[Tensor] = []
    edit = Shift(torch.ones(64))
    with attach(model.module, site, seen.append), steered.edit(edit), attach(model.module, site, seen.append):
        model.run(model.prepare(noise(1.5)))
    with (
        attach(model.module, site, seen.append),
        steered.edit(edit, padding=False),
        attach(model.module, site, seen.append),
    ):
        model.run(model.prepare(noise(1.5)))
    plain_BTD, everywhere_BTD, again_BTD, sound_BTD = seen
    assert torch.equal(plain_BTD, again_BTD)
    assert not (everywhere_BTD == plain_BTD).all(2).any()
    assert torch.equal(sound_BTD[:, :75], everywhere_BTD[:, :75])  # 1.5 s, 50 frames a second
    assert torch.equal(sound_BTD[:, 75:], plain_BTD[:, 75:])


def test_the_librarys_own_calls_have_no_time_unless_it_is_said(package: WhisperPackage, sae: SAE) -> None:
    steered, mel = steer(package, sae, "encoder.1"), mel_of(noise(2.0))
    options = whisper.DecodingOptions(language="en", fp16=False, sample_len=2)
    with steered.edit(Shift(torch.ones(64), during=(0.0, 2.0))):
        with pytest.raises(EditError, match="cuts its input into chunks"):
            steered.decode(mel, options)
        with at_time(0.0):
            steered.decode(mel, options)
    with (
        pytest.raises(EditError, match="no frame rate is known"),
        steer(package, sae, "decoder.0").edit(Ablate([1], during=(0.0, 1.0))) as on_tokens,
    ):
        on_tokens.transcribe(noise(1.0))


# --- transcribing ---


def test_without_edits_it_is_the_librarys_own(package: WhisperPackage, hf: WhisperTransformers, sae: SAE) -> None:
    audio_N = noise(33.0)
    own = whisper.transcribe(package.module, audio_N.numpy(), language="en", fp16=False, **LONG[WhisperPackage])
    for transcript in (
        package.transcribe(audio_N, language="en", **LONG[WhisperPackage]),
        steer(package, sae, "encoder.0").transcribe(audio_N, language="en", **LONG[WhisperPackage]),
    ):
        assert isinstance(transcript, Transcript)
        # the library's times go on behind the end of the sound
        assert (transcript, transcript.segments) == (own["text"].strip(), within(own["segments"], 33.0))
        assert transcript.language == "en"
    inputs = hf.feature_extractor(
        audio_N.numpy(), sampling_rate=16_000, return_tensors="pt", truncation=False, padding="longest"
    )
    own_BL = hf.module.generate(**inputs, language="en", **LONG[WhisperTransformers])
    transcript = steer(hf, sae, "encoder.0").transcribe(audio_N, language="en", **LONG[WhisperTransformers])
    assert transcript == tokenizer().decode(own_BL[0], skip_special_tokens=True).strip()
    assert [token for segment in transcript.segments for token in segment["tokens"]] == own_BL[0].tolist()
    assert transcript.segments[0].keys() >= {"start", "end", "text", "tokens"}


def test_segments_have_the_same_keys_in_both(package: WhisperPackage, hf: WhisperTransformers) -> None:
    segments = [
        model.transcribe(noise(30.0), language="en", **FAST[type(model)]).segments[0] for model in (package, hf)
    ]
    assert segments[0].keys() == segments[1].keys()
    assert segments[1]["compression_ratio"] == pytest.approx(compression_ratio(segments[1]["text"]))


def test_a_seed_gives_the_same_words_in_each_call(model: Whisper) -> None:
    drawn: Any = FAST[type(model)] | model.decoding([1.0])
    before = torch.get_rng_state()
    first, again, other = (words(model, noise(1.0), **drawn, seed=seed) for seed in (3, 3, 4))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)  # the caller's random numbers go on as they were


def test_text_without_times_is_the_same_in_both_and_beams_reach_the_library(
    package: WhisperPackage, hf: WhisperTransformers
) -> None:
    found = []
    for model in (package, hf):
        own: Any = {key: value for key, value in FAST[type(model)].items() if key in ("sample_len", "max_new_tokens")}
        found.append(words(model, noise(30.0), **own, **model.decoding([0.0], timestamps=False)))
        assert words(model, noise(30.0), **own, **model.decoding([0.0], 3, timestamps=False)) != found[-1]
    assert found[0] == found[1] == plain_words()


def test_any_source_at_any_rate(model: Whisper, tmp_path: Path) -> None:
    clip = Clip(noise(1.0).repeat(2, 1), 16_000)
    write_clip(clip, tmp_path / "a.wav", "FLOAT")
    expected = words(model, clip.waveform[0])
    for source in (clip, tmp_path / "a.wav", str(tmp_path / "a.wav"), clip.waveform[0].numpy()):
        assert words(model, source) == expected  # type: ignore[arg-type]
    assert model.prepare(Clip(torch.randn(8_000), 8_000)).shape == (1, 1, 16_000)


@cache
def plain_words() -> list[int]:
    package, hf = (words(build(kind), noise(30.0)) for kind in ("package", "transformers"))
    assert package == hf
    return package


@pytest.mark.parametrize("site", SITES)
def test_the_same_edit_gives_the_same_words_in_both(
    package: WhisperPackage, hf: WhisperTransformers, sae: SAE, site: str
) -> None:
    audio_N = noise(30.0)
    plain = plain_words()
    edits = (Shift(3 * torch.randn(64)), Ablate(range(0, 64, 2)))
    written = []
    for model in (package, hf):
        with steer(model, sae, site).edit(*edits):
            written.append(words(model, audio_N))
    assert written[0] == written[1] != plain
    assert len(plain) == 6


def test_long_files_go_the_same_way_in_both(package: WhisperPackage, hf: WhisperTransformers, sae: SAE) -> None:
    audio_N, edit = noise(65.0), Shift(3 * torch.randn(64), during=(20.0, 50.0))
    written = []
    # the package shows each window the text before it, transformers does not
    for model, own in ((package, {"condition_on_previous_text": False}), (hf, {})):
        with steer(model, sae, "encoder.0").edit(edit):
            transcript = model.transcribe(audio_N, language="en", **LONG[type(model)], **own)
        for segment in transcript.segments:
            # they differ in which segment a time stamp between two belongs to
            text = [token for token in segment["tokens"] if token < 50_257]
            written.append((type(model), round(segment["start"], 2), round(segment["end"], 2), text))
    mine, theirs = (
        [entry[1:] for entry in written if entry[0] is kind] for kind in (WhisperPackage, WhisperTransformers)
    )
    assert mine == theirs
    assert len(mine) > 2 and mine[-1][1] > 50


CALLS: dict[str, Callable[[Any, Tensor], Any]] = {
    "transcribe": lambda module, audio_N: whisper.transcribe(module, audio_N.numpy(), sample_len=2, temperature=0.0),
    "decode": lambda module, audio_N: module.decode(
        mel_of(audio_N), whisper.DecodingOptions(language="en", fp16=False, sample_len=2)
    ),
    "decode in half precision": lambda module, audio_N: whisper.decode(
        module, mel_of(audio_N), whisper.DecodingOptions(language="en", fp16=True, sample_len=2)
    ),
    "detect_language": lambda module, audio_N: module.detect_language(mel_of(audio_N)),
    "forward": lambda module, audio_N: module(mel_of(audio_N)[None], torch.tensor([[50_258]])),
    "generate": lambda module, audio_N: module.generate(mel_of(audio_N)[None], language="en", max_new_tokens=2),
    "generate with beams": lambda module, audio_N: module.generate(
        mel_of(audio_N)[None], language="en", max_new_tokens=2, num_beams=2
    ),
    "pipeline": lambda module, audio_N: transformers.pipeline(
        "automatic-speech-recognition",
        model=module,
        tokenizer=tokenizer(),
        feature_extractor=transformers.WhisperFeatureExtractor(),
    )(audio_N.numpy(), generate_kwargs={"language": "en", "max_new_tokens": 2}),
}


@pytest.mark.parametrize("call", CALLS)
@torch.no_grad()
def test_every_site_is_edited_in_every_call_of_the_library(call: str, sae: SAE) -> None:
    model = build("transformers" if call.startswith(("generate", "pipeline")) else "package")
    steered = SteeredModel(model, dict.fromkeys(SITES, sae), check=False)
    seen: dict[str, list[Tensor]] = {site: [] for site in SITES}
    with ExitStack() as stack:
        for site in SITES:
            stack.enter_context(attach(model.module, model.site(site), seen[site].append))
        stack.enter_context(steered.edit({site: Ablate(range(64)) for site in SITES}))
        for site in SITES:
            stack.enter_context(attach(model.module, model.site(site), seen[site].append))
        CALLS[call](model.module, noise(2.0))
    for site in SITES:
        before, after = seen[site][::2], seen[site][1::2]
        assert before and len(before) == len(after)
        assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True)), site
        assert {new.dtype for new in after} == {torch.float16 if "half" in call else torch.float32}


def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes half a minute to compile what finds the times of words."""
    timing = importlib.import_module("whisper.timing")
    for name in ("dtw_cpu", "backtrace"):
        monkeypatch.setattr(timing, name, getattr(timing, name).py_func)


def test_numba_gives_no_thread_of_ours_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does to the one that calls it first."""
    callers: list[int] = []
    monkeypatch.setattr("whisper.timing.dtw_cpu", lambda costs_NM: callers.append(threading.get_ident()))
    start_numba.cache_clear()
    for _ in range(2):
        start_numba()
    assert len(callers) == 1 and callers != [threading.get_ident()]


@pytest.mark.parametrize(
    "options",
    [
        {"language": "en", "beam_size": 3, "temperature": 0.0, "without_timestamps": True},
        {"language": "en", "temperature": (0.0, 0.5), "logprob_threshold": 0.0, "without_timestamps": True},
        {"language": "en", "temperature": 0.5, "best_of": 2, "without_timestamps": True},
        {"language": "en", "temperature": 0.0, "word_timestamps": True},
        {"temperature": 0.0, "without_timestamps": True},
    ],
    ids=["beams", "fallback", "best of", "word timestamps", "language detection"],
)
def test_what_the_package_can_do_it_does_under_an_edit(
    options: dict[str, Any], package: WhisperPackage, sae: SAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_numba(monkeypatch)
    audio_N, options = noise(2.0), {"sample_len": 5, "fp16": False, **options}

    def both() -> Iterator[dict[str, Any]]:
        for call in (
            lambda: vars(package.transcribe(audio_N, **options)),
            lambda: whisper.transcribe(package.module, audio_N.numpy(), **options),
        ):
            torch.manual_seed(0)
            yield call()

    plain, own = both()
    assert plain["segments"] == within(own["segments"], 2.0)
    with steer(package, sae, "encoder.1").edit(Shift(3 * torch.randn(64))):
        edited, own = both()
    assert edited["segments"] == within(own["segments"], 2.0) != plain["segments"]
    assert edited["language"] == own["language"]
    if "word_timestamps" in options:
        assert [word["word"] for segment in edited["segments"] for word in segment["words"]]
    if "logprob_threshold" in options:
        assert edited["segments"][0]["temperature"] == 0.5


@pytest.mark.parametrize(
    "options",
    [
        {"language": "en", "num_beams": 3},
        {"language": "en", "temperature": (0.0, 0.5), "logprob_threshold": 0.0, "return_timestamps": True},
        {"language": "en", "return_token_timestamps": True},
        {},
    ],
    ids=["beams", "fallback", "token timestamps", "language detection"],
)
def test_what_transformers_can_do_it_does_under_an_edit(
    options: dict[str, Any], hf: WhisperTransformers, sae: SAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    # token timestamps turn the module's attention to "eager" for good
    monkeypatch.setattr(hf.module.config, "_attn_implementation", hf.module.config._attn_implementation)
    audio_N, options = noise(2.0), {"max_new_tokens": 5, **options}
    features = hf.feature_extractor(audio_N.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    written = []
    for edits in ((), (Shift(3 * torch.randn(64)),)):
        with steer(hf, sae, "encoder.1").edit(*edits):
            torch.manual_seed(0)
            transcript = hf.transcribe(audio_N, **options)
            torch.manual_seed(0)
            own = hf.module.generate(features, **options)
        own_BL = own if isinstance(own, Tensor) else own["sequences"]
        assert transcript == tokenizer().decode(own_BL[0], skip_special_tokens=True).strip()
        written.append(transcript)
    assert written[0] != written[1]


def test_a_batch_of_sounds_is_written_as_each_alone(model: Whisper, sae: SAE) -> None:
    mels = torch.stack([mel_of(noise(2.0)), mel_of(noise(2.0, seed=1))])

    def written(mel: Tensor) -> list[list[int]]:
        if isinstance(model, WhisperPackage):
            options = whisper.DecodingOptions(language="en", fp16=False, sample_len=4, without_timestamps=True)
            return [result.tokens for result in model.decode(mel, options)]
        return model.generate(mel, language="en", max_new_tokens=4).tolist()

    strength = torch.tensor([0.0, 20.0])
    vector = torch.randn(64)
    with steer(model, sae, "encoder.0").edit(Shift(vector, strength)):
        together = written(mels)
    for index, mel in enumerate(mels):
        with steer(model, sae, "encoder.0").edit(Shift(vector, float(strength[index]))):
            assert written(mel[None]) == [together[index]]
    assert written(mels)[0] == together[0]
    assert written(mels)[1] != together[1]


def test_every_site_is_proven_to_have_a_say(model: Whisper, sae: SAE) -> None:
    steered = SteeredModel(model, dict.fromkeys(SITES, sae))
    assert [f_BTF.shape[-1] for f_BTF in steered.features(noise(1.0)).values()] == [64] * len(SITES)
    for site in SITES:
        SteeredModel(model, sae, site)


def test_hooks_and_settings_of_the_user_stay(model: Whisper, sae: SAE) -> None:
    block, calls = model.site("encoder.0").find(model.module), []
    theirs = block.register_forward_hook(lambda *args: calls.append("theirs"))
    before = {name: dict(module._forward_hooks) for name, module in model.module.named_modules()}
    with steer(model, sae, "encoder.0").edit(Ablate([1])):
        words(model, noise(1.0))
    assert "theirs" in calls
    assert {name: dict(module._forward_hooks) for name, module in model.module.named_modules()} == before
    assert current_time() is None and real_frames(1500, 50.0) == 1500
    theirs.remove()


def test_an_error_inside_leaves_no_time_behind(model: Whisper) -> None:
    def broken(x_BTD: Tensor) -> None:
        raise ArithmeticError

    with attach(model.module, model.site("encoder.0"), broken), pytest.raises(ArithmeticError):
        words(model, noise(1.0))
    assert current_time() is None and real_frames(1500, 50.0) == 1500


def test_threads_that_share_a_model_do_not_hear_each_other(
    model: Whisper, sae: SAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_numba(monkeypatch)
    steered = steer(model, sae, "encoder.1")

    def write(number: int) -> list[int]:
        edit = Shift(torch.randn(64, generator=torch.Generator().manual_seed(number % 3)), 3.0)
        options = {"word_timestamps": True} if number % 3 == 2 and isinstance(model, WhisperPackage) else {}
        with steered.edit(edit):
            return words(model, noise(0.5, number % 3), **options)

    alone = [write(number) for number in range(3)]
    assert alone[0] != alone[1]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(write, range(9))) == 3 * alone


# --- opening ---


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        transformers_module().save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        module = package_module()
        torch.save({"dims": vars(module.dims), "model_state_dict": module.state_dict()}, tmp_path / "mine.pt")
        return tmp_path / "mine.pt"

    def test_a_folder_of_transformers(self, folder: Path, hf: WhisperTransformers) -> None:
        tokenizer().save_pretrained(folder)
        transformers.WhisperFeatureExtractor(dither=0.001).save_pretrained(folder)
        model = open_model(folder)
        assert isinstance(model, WhisperTransformers)
        assert model.name == str(folder)
        assert model.feature_extractor.dither == 0.001
        model.feature_extractor.dither = 0.0
        assert words(model, noise(2.0)) == words(hf, noise(2.0))
        # a module that the user loaded finds its tokenizer as well
        theirs = transformers.WhisperForConditionalGeneration.from_pretrained(folder)
        assert wrap_model(theirs).tokenizer.vocab_size == 50_257

    def test_a_folder_without_a_tokenizer(self, folder: Path, hf: WhisperTransformers) -> None:
        model = open_model(folder)
        assert isinstance(model, WhisperTransformers)
        audio_BCN = model.prepare(noise(2.0))
        assert torch.equal(model.run(audio_BCN), hf.run(audio_BCN))
        with pytest.raises(ModelError, match="has no tokenizer; set model.tokenizer"):
            model.transcribe(noise(1.0))
        model.tokenizer = tokenizer()
        assert words(model, noise(2.0)) == words(hf, noise(2.0))

    def test_missing_weights_are_not_made_up(self, folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        del state["model.encoder.conv1.weight"]
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError, match="1 weights are not in its file, among them model.encoder.conv1.weight"):
            open_model(folder)

    def test_a_file_of_the_package(self, file: Path, package: WhisperPackage) -> None:
        model = open_model(f"whisper:{file}")
        assert isinstance(model, WhisperPackage)
        assert model.name == f"whisper:{file}"
        assert words(model, noise(2.0)) == words(package, noise(2.0))

    @pytest.mark.parametrize("content", [b"junk", {"weights": 1}, {"dims": {"n_mels": 80}}, [1]])
    def test_a_damaged_file_is_one_line(self, content: Any, tmp_path: Path) -> None:
        path = tmp_path / "bad.pt"
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        with pytest.raises(ModelError, match="not a Whisper checkpoint that can be opened") as caught:
            open_model(f"whisper:{path}")
        assert "\n" not in str(caught.value)

    def test_an_unknown_name(self) -> None:
        with pytest.raises(ModelError, match=r"unknown model 'whisper:tny'; there are .*whisper:tiny, .*a .pt file"):
            open_model("whisper:tny")

    def test_no_network_is_one_line_that_says_what_to_do(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def offline(*args: object, **kwargs: object) -> None:
            raise URLError("no network")

        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr("urllib.request.urlopen", offline)
        with pytest.raises(
            ModelError, match=r"whisper:tiny: .*no network.*fetch tiny.pt once.*whisper:/path"
        ) as caught:
            open_model("whisper:tiny")
        assert "\n" not in str(caught.value)


def test_a_model_without_words(hf: WhisperTransformers) -> None:
    bare = wrap_model(hf.module.model)
    assert isinstance(bare, WhisperTransformers)
    audio_BCN = bare.prepare(noise(1.0))
    assert tuple(bare.sites) == SITES
    assert torch.equal(bare.run(audio_BCN), hf.run(audio_BCN))
    with attach(bare.module, bare.site("decoder.1"), lambda x_BTD: None):
        assert bare.run(audio_BCN).shape == (1, 1, WIDTH)
    with pytest.raises(ModelError, match="has no words; load it as WhisperForConditionalGeneration"):
        bare.transcribe(noise(1.0))


def test_a_model_in_half_precision_still_hears_in_full(hf: WhisperTransformers) -> None:
    half = wrap_model(copy.deepcopy(hf.module).half())
    assert isinstance(half, WhisperTransformers)
    assert half.prepare(noise(1.0)).dtype == torch.float32
    audio_BCN = half.prepare(noise(1.0))
    encoded_BTD = half.run(audio_BCN)
    assert encoded_BTD.dtype == torch.float16
    # half precision has steps of 0.001 at 1, and the norm behind the last block keeps values there
    torch.testing.assert_close(encoded_BTD.float(), hf.run(audio_BCN), atol=0.05, rtol=0.05)


def test_samples_of_numpy_are_not_changed(model: Whisper) -> None:
    samples_N = noise(1.0).numpy()
    before = samples_N.copy()
    words(model, samples_N)  # type: ignore[arg-type]
    assert np.array_equal(samples_N, before)

"""A tiny Whisper with random weights, where it is seen what the model is asked; the starter's, where words count."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks import AudioFileError, SiteError, Transcriber, Transcript, at_time, attach, open_model, wrap_model
from hooks.capture import Recorder
from hooks.families.whisper import WhisperPackage
from hooks.timing import current_time, real_frames
from steer import SAE, Ablate, EditError, Shift, SteeredModel

whisper = pytest.importorskip("whisper", reason="extra whisper")

WIDTH = 32
GREEDY: dict[str, Any] = {"temperature": 0.0}
FAST: dict[str, Any] = {"temperature": 0.0, "language": "en", "sample_len": 4, "without_timestamps": True}
"""Random weights never end a sentence: four words a window are enough."""
LENGTHS = (0.6, 1.0, 1.0, 2.5, 31.5, 4.0)


@cache
def tiny_module() -> nn.Module:
    torch.manual_seed(0)
    module = whisper.model.Whisper(whisper.model.ModelDimensions(80, 1500, WIDTH, 2, 2, 51_865, 448, WIDTH, 2, 1))
    for weight in module.parameters():
        if weight.ndim > 1:
            # large enough for what is heard to decide what is written
            nn.init.normal_(weight, std=0.3)
    return module.eval()


@pytest.fixture
def tiny() -> WhisperPackage:
    model = wrap_model(tiny_module())
    assert isinstance(model, WhisperPackage)
    return model


@pytest.fixture(scope="module")
def starter() -> Transcriber:
    model = open_model("starter:asr")
    assert isinstance(model, WhisperPackage)
    return model


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    # tqdm has a thread of its own wherever the package is
    left = {thread.name for thread in threading.enumerate()} - {"MainThread", "tqdm_monitor"}
    assert not {name for name in left if name.startswith("whisper.transcribe")}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny_module().modules())
    assert current_time() is None and real_frames(1500, 50.0) == 1500


def buzz(seconds: float, seed: int) -> Tensor:
    """A buzz with two formants that wander and pause as fast as syllables do: the starter hears words in it."""
    generator = torch.Generator().manual_seed(seed)
    samples = round(seconds * 16_000)
    knots = torch.randn(4, 1, max(2, round(5 * seconds)), generator=generator)
    pitch, low, high, on = nn.functional.interpolate(knots, size=samples, mode="linear", align_corners=True)[:, 0]
    hertz = 120 * 2 ** (0.3 * pitch)
    phase = 2 * torch.pi * torch.cumsum(hertz.double() / 16_000, 0)
    sound = torch.zeros(samples)
    for partial in range(1, 25):
        first = torch.exp(-((partial * hertz - 500 - 300 * low) / 200).square())
        second = torch.exp(-((partial * hertz - 1600 - 600 * high) / 300).square())
        sound += torch.sin(partial * phase).float() * (first + 0.5 * second)
    return 0.1 * sound * (on > -0.3) + 0.002 * torch.randn(samples, generator=generator)


def buzzes(lengths: tuple[float, ...] = LENGTHS) -> list[Tensor]:
    return [buzz(seconds, seed) for seed, seconds in enumerate(lengths)]


def check_same(together: list[Transcript], alone: list[Transcript]) -> None:
    assert together == alone
    for one, other in zip(together, alone, strict=True):
        assert one.language == other.language
        for mine, theirs in zip(one.segments, other.segments, strict=True):
            for key in ("id", "seek", "start", "end", "text", "tokens", "temperature"):
                assert mine[key] == theirs[key], key
            # other sizes of matrices, other order of sums
            assert mine["avg_logprob"] == pytest.approx(theirs["avg_logprob"], abs=1e-3)


def one_by_one(model: Any, sources: list[Tensor], **options: Any) -> list[Transcript]:
    return [model.transcribe(source, **options) for source in sources]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is encoded, and what the tiny module is asked, with the number of rows."""
    asked: list[tuple[str, int]] = []

    def count(owner: Any, name: str, told: str) -> None:
        own = getattr(owner, name)

        def counted(module: Any, x: Tensor, *rest: Any) -> Any:
            asked.append((told, len(x) if x.ndim == 3 else 1))
            return own(module, x, *rest)

        monkeypatch.setattr(owner, name, counted)

    count(whisper.model.AudioEncoder, "forward", "encode")
    count(whisper.model.Whisper, "decode", "decode")
    count(whisper.model.Whisper, "detect_language", "detect_language")
    return asked


# --- the same transcripts ---


@pytest.fixture(scope="module")
def plain(starter: Transcriber) -> list[Transcript]:
    return one_by_one(starter, buzzes(), **GREEDY)


def test_transcripts_are_those_of_one_by_one(starter: Transcriber, plain: list[Transcript]) -> None:
    assert all(plain) and len(plain[4].segments) > 1
    check_same(starter.transcribe_all(buzzes(), **GREEDY), plain)


def test_transcripts_under_an_edit_are_those_of_one_by_one(starter: Transcriber, plain: list[Transcript]) -> None:
    sounds, sae = buzzes(), SAE.load("starter:asr/encoder.1")
    steered = SteeredModel(starter, sae, check=False)
    with steered.edit(Ablate(range(0, sae.d_sae, 2), during=(0.2, 0.8)), padding=False):
        alone = one_by_one(steered, sounds, **GREEDY)
        together = steered.transcribe_all(sounds, **GREEDY)
    check_same(together, alone)
    assert sum(text != other for text, other in zip(alone, plain, strict=True)) >= 2


def test_recordings_are_written_as_one_by_one(starter: Transcriber, recordings: Path) -> None:
    paths = sorted((recordings / "keywords" / "computer").glob("*.flac"))[:4]
    alone = [starter.transcribe(path) for path in paths]
    assert any("computer" in text for text in alone)
    assert [(text, text.language) for text in starter.transcribe_all(paths)] == [
        (text, text.language) for text in alone
    ]


def test_models_that_cannot_go_one_by_one(listener: Transcriber) -> None:
    sounds = [torch.full((1_600,), 0.5), torch.full((1_600,), -0.9)]
    assert listener.transcribe_all(sounds) == ["hello", ""]
    assert listener.transcribe_all([]) == []


def test_one_sound_or_none(tiny: WhisperPackage) -> None:
    assert tiny.transcribe_all([]) == []
    (one,) = tiny.transcribe_all([buzz(1.0, 0)], **FAST)
    assert vars(one) == vars(tiny.transcribe(buzz(1.0, 0), **FAST))


# --- what is asked of the model ---


def test_windows_that_are_alike_are_one_batch(tiny: WhisperPackage, batches: list[tuple[str, int]]) -> None:
    sounds = buzzes((1.0, 33.0, 2.0, 34.0))
    together = tiny.transcribe_all(sounds, **FAST)
    # second windows have the text of the first as their prompt: each its own
    assert batches == [("encode", 4), ("decode", 4), ("encode", 2), ("decode", 1), ("decode", 1)]
    check_same(together, one_by_one(tiny, sounds, **FAST))
    batches.clear()
    tiny.transcribe_all(sounds, condition_on_previous_text=False, **FAST)
    assert batches == [("encode", 4), ("decode", 4), ("encode", 2), ("decode", 2)]
    batches.clear()
    tiny.transcribe_all(sounds[::2], beam_size=2, **FAST)
    assert batches == [("encode", 2), ("decode", 1), ("decode", 1)]


def test_languages_are_found_at_once_and_written_apart(tiny: WhisperPackage, batches: list[tuple[str, int]]) -> None:
    sounds = buzzes((1.0, 29.0, 2.0, 30.0))
    options = {**FAST, "language": None}
    together = tiny.transcribe_all(sounds, **options)
    languages = [text.language for text in together]
    assert 1 < len(set(languages)) < 4
    rows = [languages.count(language) for language in dict.fromkeys(languages)]
    # the package looks for the language in true silence behind a sound, and writes it down from zeros
    assert batches == [("encode", 4), ("detect_language", 4), ("encode", 3), *(("decode", count) for count in rows)]
    check_same(together, one_by_one(tiny, sounds, **options))


def test_what_is_drawn_at_random_is_drawn_for_one_sound_after_another(
    tiny: WhisperPackage, batches: list[tuple[str, int]]
) -> None:
    sounds = buzzes((1.0, 2.0, 3.0))
    options = {**FAST, "temperature": (0.0, 0.5), "logprob_threshold": 0.0}
    torch.manual_seed(0)
    together = tiny.transcribe_all(sounds, **options)
    # the same windows: encoded once
    assert batches == [("encode", 3), ("decode", 3), ("decode", 1), ("decode", 1), ("decode", 1)]
    torch.manual_seed(0)
    check_same(together, one_by_one(tiny, sounds, **options))
    assert {text.segments[0]["temperature"] for text in together} == {0.5}


def test_with_a_seed_a_sound_draws_alone_what_it_draws_beside_others(tiny: WhisperPackage) -> None:
    sounds = buzzes((1.0, 2.0, 3.0))
    options = {**FAST, "temperature": (0.0, 0.5, 0.9), "logprob_threshold": 0.0}
    torch.manual_seed(7)
    before = torch.get_rng_state()
    together = tiny.transcribe_all(sounds, seed=0, **options)
    alone = [text for sound in sounds for text in tiny.transcribe_all([sound], seed=0, **options)]
    backwards = tiny.transcribe_all(sounds[::-1], seed=0, **options)[::-1]
    assert torch.equal(torch.get_rng_state(), before)
    check_same(together, alone)
    check_same(together, backwards)
    assert {text.segments[0]["temperature"] for text in together} == {0.9}
    assert tiny.transcribe_all(sounds, seed=1, **options) != together


def test_times_of_words_go_one_by_one(tiny: WhisperPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def transcribe(self: Any, source: str, **options: Any) -> Transcript:
        asked.append((source, options["word_timestamps"]))
        return Transcript(source)

    monkeypatch.setattr(WhisperPackage, "transcribe", transcribe)
    assert tiny.transcribe_all(["a", "b"], word_timestamps=True) == ["a", "b"]
    assert asked == [("a", True), ("b", True)]


# --- edits ---


def test_every_row_is_seen_in_its_own_time(tiny: WhisperPackage) -> None:
    sounds = buzzes((1.0, 33.0, 2.5, 1.0))
    seen: list[tuple[float | None, int, int]] = []

    def note(x_BTD: Tensor) -> None:
        seen.append((current_time(), real_frames(x_BTD.shape[1], 50.0), len(x_BTD)))

    with attach(tiny.module, tiny.site("encoder.0"), note), at_time(100.0):
        tiny.transcribe_all(sounds, **FAST)
    # the first window of each, those of one second together; then the second one of the long sound
    assert seen == [(100.0, 50, 2), (100.0, 1500, 1), (100.0, 125, 1), (130.0, 150, 1)]


def test_every_row_is_changed_where_its_own_sound_is(tiny: WhisperPackage) -> None:
    steered = SteeredModel(tiny, SAE(WIDTH, 64, "relu").requires_grad_(False), "encoder.0", check=False)
    site, seen = tiny.site("encoder.0").find(tiny.module), []

    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        seen.append(output.clone())

    with ExitStack() as stack:
        stack.callback(site.register_forward_hook(hook).remove)
        stack.enter_context(steered.edit(Shift(torch.ones(64), during=(0.5, 2.0)), padding=False))
        stack.callback(site.register_forward_hook(hook).remove)
        tiny.transcribe_all(buzzes((1.0, 3.0, 0.4)), **FAST)
    before_BTD, after_BTD = seen
    changed = [row.nonzero()[:, 0].tolist() for row in (before_BTD != after_BTD).any(2)]
    # from 0.5 s on, to the end of the span or of the sound; the last one ends before
    assert changed == [list(range(25, 50)), list(range(25, 100)), []]


def test_a_number_per_row_is_refused(tiny: WhisperPackage) -> None:
    steered = SteeredModel(tiny, SAE(WIDTH, 64, "relu").requires_grad_(False), "encoder.0", check=False)
    with (
        steered.edit(Shift(torch.ones(64), torch.tensor([0.0, 1.0]))),
        pytest.raises(EditError, match="a value per row has no meaning"),
    ):
        steered.transcribe_all(buzzes((1.0, 1.0)), **FAST)


def test_rows_that_cannot_be_recorded_as_one_are_an_error(tiny: WhisperPackage) -> None:
    with Recorder(tiny.module, [tiny.site("encoder.0")]) as recorder:
        tiny.transcribe_all(buzzes((1.0, 1.0)), **FAST)
        assert recorder.take()["encoder.0"].shape == (2, 50, WIDTH)
        with pytest.raises(SiteError, match="record the sounds one by one"):
            tiny.transcribe_all(buzzes((1.0, 2.0)), **FAST)


def test_callers_that_share_a_module_stay_apart(tiny: WhisperPackage) -> None:
    sounds = buzzes((1.0, 2.0, 1.5))
    site, sae = "encoder.0", SAE(WIDTH, 64, "relu").requires_grad_(False)
    edits = [Shift(3 * torch.randn(64)) for _ in range(3)]

    def write(number: int) -> list[list[int]]:
        with SteeredModel(tiny, sae, site, check=False).edit(edits[number]):
            return [text.segments[0]["tokens"] for text in tiny.transcribe_all(sounds, **FAST)]

    alone = [write(number) for number in range(3)]
    assert alone[0] != alone[1] != alone[2]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(write, [0, 1, 2] * 3)) == alone * 3


# --- errors ---


def test_the_first_error_is_raised_when_all_have_ended(tiny: WhisperPackage, tmp_path: Path) -> None:
    sounds: list[Any] = [buzz(1.0, 0), tmp_path / "none.wav", torch.full((16_000,), torch.nan), buzz(33.0, 1)]
    seen: list[int] = []
    with (
        attach(tiny.module, tiny.site("encoder.0"), lambda x_BTD: seen.append(len(x_BTD))),
        pytest.raises(AudioFileError, match="none.wav"),
    ):
        tiny.transcribe_all(sounds, **FAST)
    # two sounds of different length, then the second window
    assert seen == [1, 1, 1]
    with pytest.raises(AudioFileError, match="finite"):
        tiny.transcribe_all([sounds[2], sounds[1]], **FAST)


def test_an_error_of_one_row_is_that_of_its_batch(tiny: WhisperPackage) -> None:
    def broken(x_BTD: Tensor) -> None:
        if real_frames(1500, 50.0) == 100:
            raise ArithmeticError("boom")

    with attach(tiny.module, tiny.site("encoder.0"), broken), pytest.raises(ArithmeticError, match="boom"):
        tiny.transcribe_all(buzzes((1.0, 2.0, 3.0)), **FAST)


def test_an_interrupt_while_the_model_runs_ends_all(tiny: WhisperPackage) -> None:
    def stop(x_BTD: Tensor) -> None:
        raise KeyboardInterrupt

    with attach(tiny.module, tiny.site("decoder.0"), stop), pytest.raises(KeyboardInterrupt):
        tiny.transcribe_all(buzzes((1.0, 2.0, 3.0)), **FAST)


def test_an_interrupt_while_the_caller_waits_ends_all(
    tiny: WhisperPackage, monkeypatch: pytest.MonkeyPatch, batches: list[tuple[str, int]]
) -> None:
    sounds, own = buzzes((1.0, 2.0, 3.0)), WhisperPackage.prepare

    def prepare(self: Any, source: Tensor) -> Tensor:
        if source is sounds[0]:
            time.sleep(0.1)  # until the others have asked
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.3)
        return own(self, source)

    monkeypatch.setattr(WhisperPackage, "prepare", prepare)
    # workers of a test run do not listen to it
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            tiny.transcribe_all(sounds, **FAST)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert batches == []


def test_threads_see_what_the_caller_has_set(tiny: WhisperPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    said: ContextVar[str] = ContextVar("said", default="nothing")
    heard: list[str] = []
    own = WhisperPackage.prepare

    def prepare(self: Any, source: Tensor) -> Tensor:
        heard.append(said.get())
        return own(self, source)

    monkeypatch.setattr(WhisperPackage, "prepare", prepare)
    said.set("hello")
    tiny.transcribe_all(buzzes((1.0, 1.0)), **FAST)
    assert heard == ["hello"] * 2

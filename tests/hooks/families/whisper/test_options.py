"""Options are checked before a model runs, and times end where the sound does."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hooks import Clip, ModelError, open_model, read_clip
from hooks.errors import SoundWarning
from hooks.families.whisper import Whisper, WhisperPackage
from hooks.families.whisper.export import export
from hooks.families.whisper.hf import WhisperTransformers
from hooks.families.whisper.options import check_decoding, compression_ratio, spans_within, within

whisper = pytest.importorskip("whisper", reason="extra whisper")
pytest.importorskip("transformers", reason="extra whisper")

TRANSCRIBE = 50_359
SOUND = Clip(0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(0)), 16_000)


def random_whisper(vocabulary: int) -> WhisperPackage:
    torch.manual_seed(0)
    dims = whisper.model.ModelDimensions(80, 1500, 32, 2, 1, vocabulary, 448, 32, 2, 1)
    module = whisper.model.Whisper(dims)
    torch.nn.init.normal_(module.decoder.positional_embedding)  # the package leaves it as the memory was
    return WhisperPackage(module)


@cache
def package() -> WhisperPackage:
    """Many languages, random weights."""
    return random_whisper(51_865)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    export(package(), folder)
    return folder


@pytest.fixture(scope="module")
def hf(folder: Path) -> WhisperTransformers:
    model = open_model(str(folder))
    assert isinstance(model, WhisperTransformers)
    return model


@pytest.fixture(params=["package", "hf"])
def model(request: pytest.FixtureRequest) -> Whisper:
    return package() if request.param == "package" else request.getfixturevalue("hf")


def prompts(model: WhisperTransformers, call: Any) -> list[list[int]]:
    """What the decoder is given before the first word, in each pass of a call."""
    seen: list[Any] = []

    def note(module: Any, args: Any, kwargs: Any) -> None:
        seen.append(kwargs.get("input_ids", args[0] if args else None))

    handle = model.module.model.decoder.register_forward_pre_hook(note, with_kwargs=True)
    try:
        call()
    finally:
        handle.remove()
    return [one[0].tolist() for one in seen if one is not None and one.shape[1] > 1]


class TestTask:
    def test_an_exported_folder_has_the_task_in_its_prompt(self, hf: WhisperTransformers) -> None:
        features = hf.feature_extractor(SOUND.waveform[0].numpy(), sampling_rate=16_000, return_tensors="pt")
        (first, *_) = prompts(hf, lambda: hf.module.generate(**features, max_new_tokens=2))
        assert first[2] == TRANSCRIBE and len(first) == 4

    def test_so_has_a_model_whose_settings_lack_it(self, hf: WhisperTransformers) -> None:
        had = hf.module.generation_config.task
        hf.module.generation_config.task = None
        try:
            found: list[Any] = []
            (first, *_) = prompts(hf, lambda: found.append(hf.transcribe(SOUND, max_new_tokens=2)))
        finally:
            hf.module.generation_config.task = had
        assert first[2] == TRANSCRIBE
        # the language that stands in the prompt is that which is reported
        assert hf.module.generation_config.lang_to_id[f"<|{found[0].language}|>"] == first[1]

    def test_another_task_is_done_where_it_is_asked_for(self, hf: WhisperTransformers) -> None:
        (first, *_) = prompts(hf, lambda: hf.transcribe(SOUND, max_new_tokens=2, task="translate", language="German"))
        names = hf.module.generation_config
        assert first[1:3] == [names.lang_to_id["<|de|>"], names.task_to_id["translate"]]

    def test_real_speech_comes_out_in_words(self, real_weights: Path, recordings: Path, tmp_path: Path) -> None:
        export(open_model(f"whisper:{real_weights}/base.pt"), tmp_path / "base")
        model = open_model(str(tmp_path / "base"))
        assert isinstance(model, WhisperTransformers)
        clip = read_clip(recordings / "ljspeech" / "LJ001-0002.flac")
        transcript = model.transcribe(clip, word_timestamps=True)
        own = open_model(f"whisper:{real_weights}/base.pt").transcribe(clip)
        assert transcript.language == own.language == "en"
        letters = ["".join(letter for letter in text.lower() if letter.isalpha()) for text in (transcript, own)]
        assert letters[0] == letters[1] != ""
        words = [word for segment in transcript.segments for word in segment["words"]]
        assert "".join(word["word"] for word in words).strip() == transcript
        times = [time for word in words for time in (word["start"], word["end"])]
        assert times == sorted(times) and times[0] >= 0 and times[-1] <= clip.seconds


class TestOptions:
    @pytest.mark.parametrize(
        ("language", "hint"), [("zh-CN", "did you mean zh"), ("germann", "did you mean de"), ("xx", "it knows af, am")]
    )
    def test_an_unknown_language_is_refused_with_the_codes(self, model: Whisper, language: str, hint: str) -> None:
        with pytest.raises(ModelError, match=f"unknown language '{language}'; .*{hint}") as error:
            model.transcribe(SOUND, language=language)
        assert ", de, " in str(error.value) and ", zh" in str(error.value)

    @pytest.mark.parametrize(
        ("language", "code"), [("DE", "de"), ("German", "de"), ("mandarin", "zh"), ("<|fr|>", "fr")]
    )
    def test_codes_and_names_are_known(self, model: Whisper, language: str, code: str) -> None:
        assert model.language_option(language) == {"language": code}

    def test_other_mistakes_are_refused_before_the_sound_is_read(self, model: Whisper) -> None:
        with pytest.raises(ModelError, match="unknown task 'transalte'; there are transcribe and translate"):
            model.transcribe("no such file.wav", task="transalte")
        with pytest.raises(ModelError, match=r"unknown option 'beam_sice'; did you mean beam_size\?"):
            package().transcribe("no such file.wav", beam_sice=5)

    def test_segments_can_be_left_out(self, hf: WhisperTransformers) -> None:
        with_segments, without = (
            hf.transcribe(SOUND, max_new_tokens=2, language="en", return_segments=wanted) for wanted in (True, False)
        )
        assert with_segments == without and with_segments.segments and not without.segments

    def test_spans_behind_the_end_come_to_an_end(self) -> None:
        with pytest.warns(SoundWarning, match=r"\[5.0, 7.0\] hold none of 1.00 s"):
            assert package().transcribe(SOUND, clip_timestamps=[5.0, 7.0]) == ""
        how: dict[str, Any] = {"language": "en", "temperature": 0.0, "sample_len": 3}
        cut, whole = (package().transcribe(SOUND, clip_timestamps=spans, **how) for spans in ("0.5,9", "0.5"))
        assert cut == whole and cut.segments == whole.segments

    @pytest.mark.parametrize("spans", ["a,b", [-1.0, 2.0], [2.0, 1.0], [float("nan")]])
    def test_spans_that_are_none(self, spans: Any) -> None:
        with pytest.raises(ModelError, match="are not start,end,start,end"):
            package().transcribe(SOUND, clip_timestamps=spans)


def test_no_segment_ends_behind_the_sound(model: Whisper) -> None:
    how: dict[str, Any] = (
        {"max_new_tokens": 3} if isinstance(model, WhisperTransformers) else {"sample_len": 3, "temperature": 0.0}
    )
    transcript = model.transcribe(SOUND, language="en", **how)
    assert transcript.segments
    assert all(0.0 <= segment["start"] <= segment["end"] <= 1.0 for segment in transcript.segments)


@given(st.lists(st.floats(0, 50), max_size=8), st.floats(0.1, 40))
def test_spans_lie_within_the_sound(times: list[float], seconds: float) -> None:
    times = sorted(times)
    found = spans_within(times, seconds, "model")
    assert found == sorted(found) and all(0 <= time <= seconds for time in found) and len(found) % 2 == 0
    starts = (times or [0.0])[::2]
    assert len(found) // 2 <= len(starts)
    if not times or times[0] < min(seconds, [*times, seconds][1]):
        assert found[0] == (times or [0.0])[0]


@given(st.lists(st.tuples(st.floats(-1, 60), st.floats(0, 60)), max_size=5), st.floats(0.1, 30))
def test_times_are_clamped_and_nothing_else(times: list[tuple[float, float]], seconds: float) -> None:
    segments = [
        {"start": a, "end": a + b, "text": "x", "words": [{"word": "x", "start": a, "end": a + b}]} for a, b in times
    ]
    for before, after in zip(segments, within(segments, seconds), strict=True):
        for one, other in ((before, after), (before["words"][0], after["words"][0])):
            assert 0 <= other["start"] <= other["end"] <= seconds
            for key in ("start", "end"):
                assert other[key] == one[key] or not 0 <= one[key] <= seconds
        assert after["text"] == "x"


def test_a_model_for_english_alone(tmp_path: Path) -> None:
    english = random_whisper(51_864)
    export(english, tmp_path / "en")
    for model in (english, open_model(str(tmp_path / "en"))):
        assert isinstance(model, Whisper)
        with pytest.raises(ModelError, match="knows English alone; leave out the language de"):
            model.transcribe(SOUND, language="de")
        how: dict[str, Any] = {"sample_len": 2, "temperature": 0.0} if model is english else {"max_new_tokens": 2}
        assert model.transcribe(SOUND, language="en", **how).language == "en"
        assert model.transcribe(SOUND, **how).language == "en"


@pytest.mark.parametrize(
    ("temperature", "beams", "message"),
    [
        ([-0.1], None, "a temperature is a number from 0, not -0.1"),
        ([float("nan")], None, "a temperature is a number from 0, not nan"),
        ([0.0], 0, "a beam size is a whole number from 1, not 0"),
        ([0.5, 0.0], 2, "beams are searched at temperature 0, not at 0.5"),
    ],
)
def test_how_words_are_found_is_checked(temperature: list[float], beams: int | None, message: str) -> None:
    with pytest.raises(ModelError, match=f"m: {message}"):
        check_decoding(temperature, beams, "m")
    check_decoding([0.0, 0.5], 2, "m")


def test_the_compression_ratio_is_whispers() -> None:
    utils = pytest.importorskip("whisper.utils", reason="extra whisper")
    for text in ("one two", "no " * 50, "ä"):
        assert compression_ratio(text) == utils.compression_ratio(text)

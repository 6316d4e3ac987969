from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from hooks import AudioFileError, ModelError, read_clip
from hooks.clip import audio_info, read_blocks
from steer.editing import trials
from steer.editing.editor import Editor
from steer.editing.manner import Manner, coherent
from steer.editing.render import Renderer
from steer.errors import EditError, SAEError
from steer.recipe import Recipe
from steer.sae import SAE
from tests.tiny_codec import tones
from tests.tolerance import of_network

Write = Callable[..., Path]
Build = Callable[..., Editor]


@pytest.fixture
def editor(codec_folder: Path, sae_folder: Path) -> Build:
    def build(chunk_s: float = 20.0, **values: Any) -> Editor:
        values = {"model": str(codec_folder), "saes": {"latent": str(sae_folder)}, **values}
        return Editor(Recipe.build(values), chunk_s)

    return build


LOUDER = {"clamp": {0: 1.0}}


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("a.wav", 44_100, 2, "PCM_24"),
        ("a.wav", 48_000, 1, "FLOAT"),
        ("a.wav", 24_000, 1, "PCM_U8"),
        ("a.flac", 44_100, 2, "PCM_16"),
        ("a.flac", 96_000, 1, "PCM_24"),
        ("a.ogg", 44_100, 2, "VORBIS"),
        ("a.aiff", 22_050, 3, "PCM_16"),
    ],
)
@pytest.mark.parametrize("residual", ["keep", "drop", "ratio"])
def test_format_stays(
    editor: Build, sound: Write, tmp_path: Path, name: str, rate: int, channels: int, subtype: str, residual: str
) -> None:
    source = sound(name, 0.51234, rate, channels, subtype)
    target = tmp_path / f"out{source.suffix}"
    outcome = editor(edits=[LOUDER], residual=residual).edit_file(source, target)
    before, after = soundfile.info(source), soundfile.info(target)
    same = ("samplerate", "channels", "frames", "format", "subtype")
    assert [getattr(before, key) for key in same] == [getattr(after, key) for key in same]
    assert not outcome.unchanged
    assert not np.array_equal(soundfile.read(source)[0], soundfile.read(target)[0])


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"edits": [{"scale": {0: 1.0}}]},  # an edit that changes nothing
        {"edits": [{"clamp": {0: 3.0}, "during": [100, 200]}]},
        {"edits": [{"clamp": {0: 3.0}, "during": [100, 200]}], "residual": "ratio"},
        {"edits": [{"clamp": {0: 3.0}, "during": [100, 200]}], "residual": "drop"},
    ],
)
def test_residual_kept_and_no_change_gives_the_file_back(
    editor: Build, sound: Write, tmp_path: Path, name: str, values: dict
) -> None:
    source = sound(name, 0.5, 44_100, 2)
    outcome = editor(**values).edit_file(source, tmp_path / f"out{source.suffix}")
    assert (tmp_path / f"out{source.suffix}").read_bytes() == source.read_bytes()
    assert outcome.unchanged
    assert outcome.met


def test_32_bit_integers_survive(editor: Build, tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-(2**31), 2**31, (6000, 1), dtype=np.int32)
    soundfile.write(tmp_path / "a.wav", samples, 24_000, "PCM_32")
    # to another container, so that nothing is copied
    editor().edit_file(tmp_path / "a.wav", tmp_path / "out.aiff")
    assert np.array_equal(soundfile.read(tmp_path / "out.aiff", dtype="int32", always_2d=True)[0], samples)


def test_residual_dropped_and_no_edit_is_the_codecs_round_trip(editor: Build, sound: Write, tmp_path: Path) -> None:
    source = sound("a.wav", 0.6, 24_000, subtype="FLOAT")
    dropping = editor(residual="drop")
    dropping.edit_file(source, tmp_path / "out.wav")
    expected = dropping.codec.resynthesize(source)
    assert torch.equal(read_clip(tmp_path / "out.wav").waveform, expected.waveform)


def test_residual_kept_adds_what_the_edit_makes_of_the_round_trip(editor: Build, sound: Write, tmp_path: Path) -> None:
    source = sound("a.wav", 0.6, 24_000, subtype="FLOAT")
    for residual in ("keep", "drop"):
        editor(edits=[LOUDER], residual=residual).edit_file(source, tmp_path / f"{residual}.wav")
    editor(residual="drop").edit_file(source, tmp_path / "plain.wav")
    kept, edited, plain, before = (
        read_clip(path).waveform for path in (*(tmp_path / f"{n}.wav" for n in ("keep", "drop", "plain")), source)
    )
    # one rounding of float32 each
    assert torch.allclose(kept, before + (edited - plain), atol=1e-6)


def test_channels_are_edited_alike_and_by_themselves(editor: Build, sound: Write, tmp_path: Path) -> None:
    source = sound("a.wav", 0.5, 24_000, 2, "FLOAT")
    left = Path(tmp_path / "left.wav")
    soundfile.write(left, soundfile.read(source)[0][:, 0], 24_000, "FLOAT")
    both = editor(edits=[LOUDER])
    both.edit_file(source, tmp_path / "out.wav")
    both.edit_file(left, tmp_path / "left_out.wav")
    stereo, alone = (read_clip(tmp_path / name).waveform for name in ("out.wav", "left_out.wav"))
    # products of a batch of two are summed in another order; the edit raises the level, and errors with it
    codec, audio_BCN = both.codec, both.codec.prepare(left)
    plain_N = codec.run(audio_BCN)[0, 0]
    louder = max(1.0, float(alone.abs().max() / plain_N.abs().max()))
    rounding = of_network(codec.module, lambda module, x_BN: module.decode(module.encode(x_BN)), audio_BCN[:, 0])
    assert 0 < louder * rounding < 1e-3
    assert torch.allclose(stereo[0], alone[0], rtol=0, atol=louder * rounding)
    assert not torch.allclose(stereo[1], alone[0], rtol=0, atol=100 * louder * rounding)


def test_during_means_seconds_of_the_file(editor: Build, sound: Write, tmp_path: Path) -> None:
    source = sound("a.wav", 8.0, 24_000, subtype="FLOAT")
    # short chunks: the span lies far behind the first one
    outcome = editor(1.0, edits=[LOUDER], during=[5.0, 5.5]).edit_file(source, tmp_path / "out.wav")
    assert outcome.measured_s == pytest.approx(0.5)
    difference = (read_clip(tmp_path / "out.wav").waveform - read_clip(source).waveform).abs()[0]
    changed = difference.nonzero()[:, 0] / 24_000
    assert 5.0 < changed.min() < 5.01
    assert 5.49 < changed.max() < 5.5


def test_chunks_leave_no_trace(editor: Build, sound: Write, tmp_path: Path) -> None:
    source = sound("a.wav", 4.3, 44_100, subtype="FLOAT")
    for chunk_s in (1.0, 100.0):
        editor(chunk_s, edits=[LOUDER]).edit_file(source, tmp_path / f"{chunk_s}.wav")
    chunked, whole = (read_clip(tmp_path / f"{chunk_s}.wav").waveform for chunk_s in (1.0, 100.0))
    # float32 in another order, and what is left of the LSTM's memory after a second of context
    assert (chunked - whole).abs().max() < 1e-4


def test_sound_in_blocks_of_any_size_is_the_same(editor: Build, sound: Write) -> None:
    info = audio_info(sound("a.wav", 2.0, 44_100))
    one = editor(edits=[LOUDER])
    edits = one.recipe.edits_for()
    results = []
    for size in (1000, 50_000, 10**6):
        renderer = Renderer(one.steered, one.chunk_s)
        blocks = renderer.render(read_blocks(info, size, "float64"), info.sample_rate, edits, Manner("ratio"))
        results.append(torch.cat([after for _, after in blocks], dim=1))
        assert results[-1].shape[1] == info.frames
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("frames", [1, 2, 100, 321])
def test_very_short_sounds(editor: Build, tmp_path: Path, frames: int) -> None:
    for rate in (8000, 48_000):
        soundfile.write(tmp_path / "a.wav", np.full((frames, 1), 0.1), rate)
        for residual in ("keep", "drop"):
            editor(edits=[LOUDER], residual=residual).edit_file(tmp_path / "a.wav", tmp_path / "o.wav", force=True)
            assert soundfile.info(tmp_path / "o.wav").frames == frames


def level_db(path: Path, channel: slice = slice(None)) -> float:
    samples = soundfile.read(path, always_2d=True)[0][:, channel]
    return float(10 * np.log10(np.mean(samples**2)))


@pytest.mark.parametrize("residual", ["ratio", "drop"])
@pytest.mark.parametrize(("rate", "subtype"), [(24_000, "FLOAT"), (44_100, "PCM_16")])
def test_a_goal_is_met_against_the_file(
    editor: Build, sound: Write, tmp_path: Path, residual: str, rate: int, subtype: str
) -> None:
    source = sound("a.wav", 1.0, rate, subtype=subtype)
    one = Editor(editor(goals={"loudness": "+3dB"}, residual=residual).recipe, pitch=False, details=True)
    outcome = one.edit_file(source, tmp_path / "out.wav")
    change = level_db(tmp_path / "out.wav") - level_db(source)
    # the file on disk has the change that was reported, but for its rounding
    assert change == pytest.approx(outcome.measured["loudness"], abs=0.01)
    assert outcome.round_trip["loudness"] is not None
    if residual == "ratio":
        assert outcome.met and change == pytest.approx(3.0, abs=0.5)
        assert not one.recipe.residual or one.recipe.residual == "ratio"


def test_ratio_is_the_default_for_goals(editor: Build, sound: Write, tmp_path: Path) -> None:
    source = sound("a.wav", 1.0, 44_100, 2)
    for residual in (None, "ratio"):
        one = editor(goals={"loudness": 3}, residual=residual)
        Editor(one.recipe, steered=one.steered, pitch=False).edit_file(source, tmp_path / f"{residual}.wav")
    assert (tmp_path / "None.wav").read_bytes() == (tmp_path / "ratio.wav").read_bytes()


@pytest.mark.parametrize(("name", "subtype"), [("a.wav", "PCM_16"), ("a.wav", "FLOAT"), ("a.flac", "PCM_16")])
@pytest.mark.parametrize("values", [{"goals": {"loudness": 4}}, {"edits": [LOUDER], "residual": "drop"}])
def test_outside_the_spans_the_file_is_the_input_bit_for_bit(
    editor: Build, sound: Write, tmp_path: Path, name: str, subtype: str, values: dict[str, Any]
) -> None:
    source = sound(name, 2.0, 44_100, 2, subtype)
    target = tmp_path / f"out{source.suffix}"
    spans = [[0.35, 0.6], [1.25, 1.55]]
    # chunks of half a second: seams lie inside and outside
    one = editor(0.5, during=spans, **values)
    outcome = Editor(one.recipe, 0.5, steered=one.steered, pitch=False, details=True).edit_file(source, target)
    kind = "float32" if subtype == "FLOAT" else "int16"
    before, after = (soundfile.read(path, dtype=kind)[0] for path in (source, target))
    inside = np.zeros(len(before), bool)
    for start, end in spans:
        inside[round(start * 44_100) : round(end * 44_100)] = True
    assert np.array_equal(before[~inside], after[~inside])
    assert (before[inside] != after[inside]).mean() > 0.5
    assert outcome.kept["outside_unchanged"] and outcome.measured_s == pytest.approx(0.55)


def test_a_goal_in_a_span_is_about_the_span(editor: Build, sound: Write, tmp_path: Path) -> None:
    source = sound("a.wav", 4.0, 44_100, 2, "FLOAT")
    outcome = editor(goals={"loudness": 4}, during=[1, 3]).edit_file(source, tmp_path / "out.wav")
    before, after = (soundfile.read(path)[0][44_100 : 3 * 44_100] for path in (source, tmp_path / "out.wav"))
    assert outcome.met
    assert 10 * np.log10((after**2).mean() / (before**2).mean()) == pytest.approx(4.0, abs=0.5)


def test_channels_are_measured_one_by_one(editor: Build, sound: Write, tmp_path: Path) -> None:
    source = sound("a.wav", 1.0, 44_100, 2, "FLOAT")
    outcome = editor(goals={"loudness": 3}).edit_file(source, tmp_path / "out.wav")
    assert len(outcome.channels) == 2
    for number, changes in enumerate(outcome.channels):
        channel = slice(number, number + 1)
        change = level_db(tmp_path / "out.wav", channel) - level_db(source, channel)
        assert changes["loudness"] == pytest.approx(change, abs=0.01) and changes["pitch"] is None


def test_a_pitch_out_of_reach_is_reported_and_the_file_written(
    editor: Build, sound: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchcrepe", reason="pitch is measured by torchcrepe")
    monkeypatch.setattr(trials, "LARGER_CREPE", "full")
    monkeypatch.setattr(trials, "LARGER_CREPE_FRAMES", 6)
    outcome = editor(goals={"pitch": 3}).edit_file(sound("a.wav", 0.5), tmp_path / "out.wav")
    assert not outcome.met
    assert (tmp_path / "out.wav").exists()


@pytest.mark.parametrize("rate", [24_000, 44_100])
@pytest.mark.parametrize("residual", ["drop", "ratio"])
def test_a_pitch_goal_of_stereo_gives_stereo(editor: Build, tmp_path: Path, rate: int, residual: str) -> None:
    """The codec is given the mean of channels that are nearly the same."""
    pytest.importorskip("torchcrepe", reason="pitch is measured by torchcrepe")
    left = tones(0.6, rate)
    soundfile.write(tmp_path / "a.wav", np.concatenate([left, 0.5 * left], axis=1), rate, "FLOAT")
    outcome = editor(goals={"pitch": 1}, residual=residual).edit_file(tmp_path / "a.wav", tmp_path / "out.wav")
    assert soundfile.info(tmp_path / "out.wav").channels == 2 and len(outcome.channels) == 2


@pytest.mark.parametrize("values", [{"goals": {"pitch": 2}}, {"goals": {"pitch": 2, "loudness": 3}}])
def test_a_pitch_goal_without_a_pitch_is_refused(editor: Build, tmp_path: Path, values: dict[str, Any]) -> None:
    pytest.importorskip("torchcrepe", reason="pitch is measured by torchcrepe")
    noise = 0.1 * np.random.default_rng(0).standard_normal(24_000)
    for name, samples in (("noise", noise), ("silence", 0 * noise)):
        soundfile.write(tmp_path / f"{name}.wav", samples, 24_000)
        with pytest.raises(EditError, match="no pitch to move"):
            editor(**values).edit_file(tmp_path / f"{name}.wav", tmp_path / "out.wav")
    assert not (tmp_path / "out.wav").exists()


LOUDEST = {"clamp": {0: 2.0}}


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_the_limiter_keeps_peaks_below_full_scale(editor: Build, sound: Write, tmp_path: Path, suffix: str) -> None:
    source, target = sound(f"a.{suffix}", 0.5), tmp_path / f"out.{suffix}"
    outcome = editor(edits=[LOUDEST]).edit_file(source, target)
    assert outcome.clipped == 0 and outcome.limited_db > 1
    if suffix != "ogg":  # which is lossy
        assert np.abs(soundfile.read(target)[0]).max() < 10 ** (-0.05 / 20)


def test_without_the_limiter_samples_are_clipped_and_counted(editor: Build, sound: Write, tmp_path: Path) -> None:
    source = sound("a.wav", 0.5)
    outcome = editor(edits=[LOUDEST], limit=False).edit_file(source, tmp_path / "out.wav")
    samples = soundfile.read(tmp_path / "out.wav", dtype="int16")[0]
    assert outcome.clipped == pytest.approx((np.abs(samples.astype(int)) >= 2**15 - 1).sum(), abs=5)
    assert outcome.clipped > 0 and outcome.limited_db == 0
    # what is reported is what the clipped file has
    assert outcome.measured["loudness"] == pytest.approx(level_db(tmp_path / "out.wav") - level_db(source), abs=0.01)


def test_float_files_are_not_limited(editor: Build, sound: Write, tmp_path: Path) -> None:
    outcome = editor(edits=[LOUDEST]).edit_file(sound("a.wav", 0.5, subtype="FLOAT"), tmp_path / "out.wav")
    assert np.abs(soundfile.read(tmp_path / "out.wav")[0]).max() > 1
    assert outcome.clipped == 0 and outcome.limited_db == 0


def test_the_limiters_work_in_a_search_is_reported(editor: Build, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", 2.0 * tones(1.0), 24_000)
    one = editor(goals={"loudness": 3})
    outcome = Editor(one.recipe, steered=one.steered, pitch=False).edit_file(tmp_path / "a.wav", tmp_path / "out.wav")
    assert outcome.limited_db > 0.5 and outcome.clipped == 0


def test_a_clipped_file_does_not_grow_clipped_samples(editor: Build, tmp_path: Path) -> None:
    samples = np.clip(4.0 * tones(1.0), -1, 1)
    soundfile.write(tmp_path / "a.wav", samples, 24_000)
    one = editor(goals={"brightness": 10})
    outcome = Editor(one.recipe, steered=one.steered, pitch=False).edit_file(tmp_path / "a.wav", tmp_path / "out.wav")
    before, after = (np.abs(soundfile.read(tmp_path / f"{name}.wav")[0]) for name in ("a", "out"))
    assert (before >= 0.9999).sum() > 100
    assert (after >= 0.9999).sum() == 0 and outcome.clipped == 0


def test_what_cannot_be_done_is_refused_before_any_file(editor: Build, sae_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EditError, match="no feature 999: the SAE has features 0 to 47"):
        editor(edits=[{"ablate": [999]}])
    with pytest.raises(EditError, match="no such file of control vectors"):
        editor(edits=[{"shift": "none.safetensors"}])
    with pytest.raises(SAEError, match="5 wide"):
        editor(saes={"latent": str(SAE(5, 8, "relu").save(tmp_path / "narrow"))})
    with pytest.raises(ModelError, match="no model"):
        editor(model="nothing:there")


def test_edit_that_overflows_is_refused(editor: Build, sound: Write, tmp_path: Path) -> None:
    with pytest.raises(EditError, match="overflow"):
        editor(edits=[{"clamp": {0: 1e38, 1: -1e38}}]).edit_file(sound("a.wav", 0.5), tmp_path / "out.wav")
    assert not list(tmp_path.glob("*out.wav*"))


def test_goals_need_a_sound_that_lasts_until_the_span(editor: Build, sound: Write, tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match=r"ends at 0\.50 s"):
        editor(goals={"loudness": 1}, during=[2, 3]).edit_file(sound("a.wav", 0.5), tmp_path / "out.wav")


@pytest.mark.parametrize("values", [{"edits": [LOUDER]}, {"goals": {"loudness": 2}}])
def test_an_open_model_and_no_pitch_give_the_same_file(
    editor: Build, sound: Write, tmp_path: Path, values: dict[str, Any]
) -> None:
    pytest.importorskip("torchcrepe", reason="pitch is measured by torchcrepe")
    source, whole = sound("a.wav", 0.8), editor(**values)
    quick = Editor(whole.recipe, steered=whole.steered, pitch=False)
    assert quick.steered is whole.steered
    opening = whole.edit_file(source, tmp_path / "whole.wav")
    given = quick.edit_file(source, tmp_path / "quick.wav")
    assert (tmp_path / "quick.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()
    assert given.strengths == opening.strengths
    assert given.measured == {**opening.measured, "pitch": None}


def test_a_pitch_goal_is_measured_in_any_case(editor: Build, sound: Write, tmp_path: Path) -> None:
    pytest.importorskip("torchcrepe", reason="pitch is measured by torchcrepe")
    whole = editor(goals={"pitch": 1})
    outcome = Editor(whole.recipe, steered=whole.steered, pitch=False).edit_file(
        sound("a.wav", 0.5), tmp_path / "o.wav"
    )
    assert outcome.measured["pitch"] is not None and not outcome.met


@pytest.mark.parametrize(("shared", "one"), [(1.0, True), (0.8, True), (0.0, False)])
def test_channels_are_one_source_where_they_correlate(shared: float, one: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x_CN = (1 - shared) ** 0.5 * torch.randn(2, 48_000, generator=generator)
    x_CN = x_CN + shared**0.5 * torch.randn(1, 48_000, generator=generator)
    assert coherent([x_CN]) is one
    assert coherent([torch.cat([x_CN, torch.zeros(1, 48_000)])]) is one  # silent channels do not count
    assert not coherent([x_CN[:1]])

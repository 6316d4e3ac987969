from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from apps.page.edit_run import (
    MISSING,
    Edited,
    amount,
    edit_for_page,
    kept_rows,
    level_matched,
    loudness_db,
    measured_rows,
)
from apps.samples import sung_phrase
from hooks import AudioFileError, write_clip
from steer.editing.editor import Editor, Outcome
from steer.recipe import Recipe
from steer.steered import SteeredModel
from tests.tiny_codec import tones

Write = Callable[..., Path]
Steer = Callable[..., tuple[int, str, str]]
LOUDER = {"clamp": {0: 1.0}}


def quiet(stage: str, share: float) -> None:
    """Nobody looks."""


@pytest.fixture(scope="module")
def steered(codec_folder: Path, sae_folder: Path) -> SteeredModel:
    return Recipe.build({"model": str(codec_folder), "saes": {"latent": str(sae_folder)}}).open()


@pytest.fixture
def editor(steered: SteeredModel, codec_folder: Path, sae_folder: Path) -> Callable[..., Editor]:
    def build(**values: Any) -> Editor:
        recipe = Recipe.build({"model": str(codec_folder), "saes": {"latent": str(sae_folder)}, **values})
        return Editor(recipe, steered=steered, pitch=False, details=True)

    return build


Build = Callable[..., Editor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The run's own."""
    place = tmp_path / "run"
    place.mkdir()
    return place


def samples(path: Path) -> np.ndarray:
    return np.asarray(soundfile.read(path, always_2d=True)[0])


def rms_db(path: Path) -> float:
    return float(10 * np.log10(np.mean(samples(path) ** 2)))


# --- files ---


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("a b.wav", 44_100, 2, "PCM_24"),
        ("a.b.WAV", 24_000, 1, "PCM_16"),
        ("a.flac", 48_000, 1, "PCM_16"),
        ("a.ogg", 44_100, 2, "VORBIS"),
    ],
)
def test_what_browsers_play_keeps_its_format(
    editor: Build, sound: Write, folder: Path, name: str, rate: int, channels: int, subtype: str
) -> None:
    source = sound(name, 0.6, rate, channels, subtype)
    edited = edit_for_page(editor(edits=[LOUDER]), source, folder, quiet)
    assert edited.before == source
    stem, ending = source.stem, source.suffix.lower()
    assert (edited.round_trip.name, edited.after.name) == (f"{stem}-round-trip{ending}", f"{stem}-edited{ending}")
    assert edited.recipe.name == f"{stem}-recipe.yaml"
    # nothing else was written, and nothing elsewhere
    assert {*folder.iterdir()} == {edited.round_trip, edited.after, edited.recipe}
    assert {*folder.parent.iterdir()} == {source, folder}
    same = ("samplerate", "channels", "frames", "format", "subtype")
    kinds = [[getattr(soundfile.info(path), key) for key in same] for path in edited.sounds]
    assert kinds[0] == kinds[1] == kinds[2]
    assert not np.array_equal(samples(edited.round_trip), samples(edited.after))


@pytest.mark.parametrize(("name", "subtype"), [("a.aiff", "PCM_24"), ("a.au", "FLOAT"), ("a.caf", "PCM_16")])
def test_what_browsers_do_not_play_becomes_wav(
    editor: Build, sound: Write, folder: Path, name: str, subtype: str
) -> None:
    source = sound(name, 0.6, 44_100, 2, subtype)
    edited = edit_for_page(editor(edits=[LOUDER]), source, folder, quiet)
    assert [path.name for path in edited.sounds] == ["a.wav", "a-round-trip.wav", "a-edited.wav"]
    assert all(path.parent == folder and soundfile.info(path).format == "WAV" for path in edited.sounds)
    assert {soundfile.info(path).subtype for path in edited.sounds} == {subtype}
    assert np.array_equal(samples(edited.before), samples(source))


def test_the_round_trip_is_the_codecs_own(editor: Build, sound: Write, folder: Path) -> None:
    source = sound("a.wav", 0.6, subtype="FLOAT")
    for number, residual in enumerate(("keep", "drop")):
        (place := folder / str(number)).mkdir()
        one = editor(edits=[LOUDER], residual=residual)
        edited = edit_for_page(one, source, place, quiet)
        expected = one.codec.resynthesize(source).waveform.T.numpy()
        assert np.array_equal(samples(edited.round_trip).astype(np.float32), expected)


def test_each_run_tells_how_far_it_is(editor: Build, sound: Write, folder: Path) -> None:
    told: list[tuple[str, float]] = []
    edit_for_page(editor(goals={"loudness": 2}), sound("a.wav", 2.5), folder, lambda *one: told.append(one))
    stages = list(dict.fromkeys(stage.partition(",")[0] for stage, _ in told))
    assert stages == ["searching strengths", "editing", "measuring", "writing the round trip"]
    shares = [share for _, share in told]
    assert shares == sorted(shares) and (shares[0], shares[-1]) == (0.0, 1.0)


class Left(Exception):
    """The tab was closed."""


def test_a_report_that_raises_ends_the_run_without_half_files(editor: Build, sound: Write, folder: Path) -> None:
    one, source, told = editor(edits=[LOUDER]), sound("a.aiff", 0.4, 44_100), []
    edit_for_page(one, source, folder, lambda stage, share: told.append(stage))
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(told) > 3
    for last in range(len(told)):
        count = 0

        def leave(stage: str, share: float, last: int = last) -> None:
            nonlocal count
            if count == last:
                raise Left
            count += 1

        (place := folder / str(last)).mkdir()
        with pytest.raises(Left):
            edit_for_page(one, source, place, leave)
        # what is there is whole, and there is no hidden file beside it
        left = {path.name: path.read_bytes() for path in place.iterdir()}
        assert left.items() < whole.items()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in one.codec.module.modules())


def test_no_sound_leaves_nothing(editor: Build, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("a letter")
    with pytest.raises(AudioFileError):
        edit_for_page(editor(edits=[LOUDER]), tmp_path / "a.wav", folder, quiet)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "values",
    [
        {"goals": {"loudness": "+3dB"}, "during": [0.2, 0.9]},
        {"edits": [{"ablate": [3]}, {"clamp": {0: 0.5}, "during": [0.1, 0.5]}]},
        {"edits": [LOUDER], "residual": "drop"},
    ],
)
@pytest.mark.parametrize("name", ["a.wav", "a.aiff"])
def test_the_recipe_in_the_shell_gives_the_same_file(
    editor: Build, sound: Write, folder: Path, steer: Steer, tmp_path: Path, values: dict[str, Any], name: str
) -> None:
    source = sound(name, 1.1, 44_100, 2)
    edited = edit_for_page(editor(**values), source, folder, quiet)
    target = tmp_path / "shell.wav"
    code, _, errors = steer("edit", edited.before, "-o", target, "--recipe", edited.recipe)
    assert code == 0, errors
    # the recipe that was downloaded, and the settings that are no part of it (pitch is measured there) do not matter
    assert target.read_bytes() == edited.after.read_bytes()


# --- loudness ---


def scaled(path: Path, gain: float, rate: int = 24_000, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, gain * tones(1.3, rate, 2), rate, subtype=subtype)
    return path


def test_loudness_is_that_of_all_samples(tmp_path: Path) -> None:
    assert loudness_db(scaled(tmp_path / "a.wav", 0.5)) == pytest.approx(rms_db(tmp_path / "a.wav"), abs=1e-6)
    soundfile.write(tmp_path / "square.wav", np.tile([0.5, -0.5], 20_000), 8_000, subtype="DOUBLE")
    assert loudness_db(tmp_path / "square.wav") == pytest.approx(20 * np.log10(0.5), abs=1e-9)


@pytest.mark.parametrize("rate", [24_000, 44_100])
def test_level_matched_sounds_are_equally_loud(tmp_path: Path, folder: Path, rate: int) -> None:
    names = {"before.wav": 0.5, "soft.wav": 0.01, "loud.flac": 1.2}
    sounds = [
        scaled(tmp_path / name, gain, rate, "PCM_16" if name.endswith("flac") else "FLOAT")
        for name, gain in names.items()
    ]
    matched = level_matched(sounds, folder)
    assert matched == [folder / f"{name}-level.wav" for name in ("0-before", "1-soft", "2-loud")]
    for path, source in zip(matched, sounds, strict=True):
        assert rms_db(path) == pytest.approx(rms_db(sounds[1]), abs=0.01)  # the quietest
        # and else the same sound: 24 bits hold it to 2^-24
        gain = 10 ** ((rms_db(sounds[1]) - rms_db(source)) / 20)
        assert np.abs(samples(path) - gain * samples(source)).max() < 2**-22
    assert soundfile.info(matched[1]).subtype == "PCM_24"
    # asked for once more, the files are made again
    assert level_matched(sounds, folder) == matched


def test_silence_stays_silent_and_silences_nothing(tmp_path: Path, folder: Path) -> None:
    silence = scaled(tmp_path / "silence.wav", 0.0)
    loud = scaled(tmp_path / "loud.wav", 0.5)
    first, second = level_matched([loud, silence], folder)
    assert not samples(second).any()
    assert rms_db(first) == pytest.approx(rms_db(loud), abs=1e-3)
    assert not any(samples(path).any() for path in level_matched([silence, silence], folder))


# --- what is shown ---


def outcome_with(measured: dict[str, float | None], **values: Any) -> Outcome:
    return Outcome("a", "b", 1.0, values.pop("requested", {}), measured, 1.0, True, **values)


def test_rows_say_what_was_asked_and_what_came() -> None:
    outcome = outcome_with(
        {"loudness": 5.9376, "pitch": None, "brightness": -19.996},
        requested={"loudness": 6.0, "brightness": -20.0},
        round_trip={"loudness": 6.5, "pitch": None, "brightness": -30.0},
    )
    assert measured_rows(outcome) == [
        ["Loudness", "+6.00 dB", "+5.94 dB", "+6.50 dB"],
        ["Pitch", "as it is", MISSING, MISSING],
        ["Brightness", "-20.00 %", "-20.00 %", "-30.00 %"],
    ]
    assert measured_rows(outcome_with({"loudness": 0.0, "pitch": 0.0, "brightness": 0.0}))[0][3] == MISSING


def test_what_else_changed_is_said(editor: Build, sound: Write, folder: Path) -> None:
    source = sound("a.wav", 1.5, 44_100, 2)
    edited = edit_for_page(editor(goals={"loudness": 3}, during=[0.2, 1.2]), source, folder, quiet)
    lines = kept_rows(edited.outcome)
    assert "outside the chosen stretch: unchanged" in lines
    assert any(line.startswith("energy above the codec's band: +") for line in lines)
    assert all(row[3] != MISSING for row in measured_rows(edited.outcome) if row[0] != "Pitch")


@pytest.mark.parametrize("value", [0.0, -0.0, -0.004, 0.004, -1e-12])
def test_nothing_has_no_minus(value: float) -> None:
    assert amount(value, "dB", "") == "+0.00 dB"


def test_amounts_are_rounded_and_signed() -> None:
    assert amount(-0.006, "dB", "") == "-0.01 dB"
    assert amount(3, "semitones", "") == "+3.00 semitones"
    assert amount(None, "dB", "none") == "none"


# --- the starter ---


@pytest.fixture(scope="module")
def six_louder(tmp_path_factory: pytest.TempPathFactory) -> Edited:
    """+6 dB of a sung phrase, by what the page opens at once."""
    folder = tmp_path_factory.mktemp("starter")
    write_clip(sung_phrase(note_s=0.25), folder / "phrase.wav")
    recipe = Recipe.build({"goals": {"loudness": 6}})
    return edit_for_page(
        Editor(recipe, steered=recipe.open(), pitch=False, details=True), folder / "phrase.wav", folder, quiet
    )


def test_what_was_measured_is_what_the_files_have(six_louder: Edited) -> None:
    measured = six_louder.outcome.measured["loudness"]
    assert six_louder.outcome.met and measured is not None
    assert rms_db(six_louder.after) - rms_db(six_louder.before) == pytest.approx(measured, abs=0.01)
    assert measured == pytest.approx(6.0, abs=0.5)


def test_the_python_gives_the_same_file(six_louder: Edited, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = six_louder.after.parent
    monkeypatch.chdir(folder)
    six_louder.after.rename(folder / "page.wav")
    try:
        exec(compile(six_louder.lines, "lines", "exec"), {})
        assert six_louder.after.read_bytes() == (folder / "page.wav").read_bytes()
    finally:
        (folder / "page.wav").replace(six_louder.after)

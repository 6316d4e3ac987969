"""`Voice`: its values, the arithmetic on pitch tracks, and edits with the prototype's weights, measured by CREPE."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from hooks import at_time, wrap_model
from hooks.model import Codec
from hooks.networks.source_filter import SourceFilter
from steer.editing.editor import Editor, Outcome
from steer.editing.voice_edits import VoiceEdits
from steer.editing.voice_measure import envelope_shift, measured_voice, times, vibrato_cents
from steer.editing.voice_tracks import held, nearest_notes, notes_of, parts, wanted
from steer.edits import Shift
from steer.errors import EditError, RecipeError
from steer.recipe import Recipe
from steer.sae import SAE
from steer.steered import SteeredModel
from steer.values import Curve
from steer.vectors import ControlVector, from_direction, save_vectors
from steer.voice import Voice, note_name, note_number, pitch_classes

RATE = 75.0
# fmt: off
WHISPER = [
    0.0, -5.82, 0.35, -2.52, -1.0, -0.49, -1.05, -0.01, -0.6, 1.86, -0.29, 1.5, 2.07, -0.57, -1.57, -0.68, -1.13, 1.12,
    -1.0, -0.02, 0.72, 0.12, -0.41, 0.23, -0.14, 1.38, -0.59, -0.95, 0.91, 1.64, 1.56, -1.62, -1.47, -1.98, -0.1, 0.27,
    0.91, 0.84, -0.92, -2.07, -1.24, 0.58, -0.58, 0.21, 0.13, 1.28, -0.44, -0.47, 1.6, -1.03, -0.25, 1.0, -1.34, 1.0,
    1.54, -0.1, -1.52, -1.3, 2.31, -0.36, -2.13, -0.03, -2.71, 0.59,
]
# fmt: on
"""What makes the decoder of the prototype's weights give its voiced frames as noise (training.whisper)."""


def seconds(count: int) -> Tensor:
    return (torch.arange(count, dtype=torch.float64) + 0.5) / RATE


def asked(track_T: Tensor, voiced_T: Tensor | None = None, median: float | None = 60.0, **values: Any) -> Tensor:
    track_T = track_T.double()
    voiced_T = torch.ones(len(track_T), dtype=torch.bool) if voiced_T is None else voiced_T
    return wanted(Voice(**values), track_T, voiced_T, seconds(len(track_T)), median)


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


class TestValues:
    def test_as_people_write_them(self) -> None:
        voice = Recipe.build(
            {
                "voice": {
                    "pitch_curve": "0:0, 1.5:+3st,3:0",
                    "pitch_range": "1.5x",
                    "vibrato": False,  # what YAML makes of a bare off
                    "key": "bb MINOR",
                    "note": "A3",
                    "whisper": "80%",
                    "formants": "+2st",
                }
            }
        ).voice
        assert voice.pitch_curve == [(0, 0), (1.5, 3), (3, 0)]
        assert (voice.pitch_range, voice.vibrato, voice.key) == (1.5, "off", "Bb minor")
        assert (voice.note, voice.whisper, voice.formants) == (57.0, 0.8, 2.0)
        assert voice.active and voice.vectors == ("pitch", "whisper")
        assert not Voice().active and not Voice().vectors

    @pytest.mark.parametrize(("name", "midi"), [("A4", 69), ("c4", 60), ("Bb2", 46), ("F#3", 54), ("57.5", 57.5)])
    def test_notes(self, name: str, midi: float) -> None:
        assert note_number(name) == midi

    def test_note_names(self) -> None:
        assert [note_name(midi) for midi in (57.0, 54.0, 57.5, None)] == ["A3", "F#3", 57.5, None]

    def test_keys(self) -> None:
        assert pitch_classes("C major") == pitch_classes("A minor") == (0, 2, 4, 5, 7, 9, 11)
        assert pitch_classes("Bb major") == (0, 2, 3, 5, 7, 9, 10)
        assert pitch_classes("chromatic") == tuple(range(12))

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"key": "H major"}, "voice.key: 'H major' is not a key such as 'C major'"),
            ({"note": "X3"}, "voice.note: 'X3' is not a note such as A3"),
            ({"note": 12}, "voice.note: Input should be greater than or equal to 27"),
            ({"pitch_range": "-1x"}, "voice.pitch_range: '-1x' is not a factor"),
            ({"pitch_range": -1}, "voice.pitch_range: Input should be greater than or equal to 0"),
            ({"pitch_curve": "1,2"}, "voice.pitch_curve: '1,2' is not a curve"),
            ({"pitch_curve": "1:0,0:1"}, "voice.pitch_curve: a curve needs points whose times rise"),
            ({"pitch_curve": []}, "voice.pitch_curve: a curve needs points"),
            ({"vibrato": "on"}, "voice.vibrato: Input should be 'off'"),
            ({"whisper": 1.5}, "voice.whisper: Input should be less than or equal to 1"),
            ({"whisper": "much"}, "voice.whisper: 'much' is not a share"),
            ({"formants": "2dB"}, "voice.formants: '2dB' is not an amount such as +2st"),
            ({"formant": 1}, "there is no key 'voice.formant'; did you mean 'formants'?"),
        ],
    )
    def test_what_makes_no_sense(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(RecipeError) as caught:
            Recipe.build({"voice": values})
        assert message in str(caught.value) and "\n" not in str(caught.value)

    def test_a_note_and_a_pitch_goal_exclude_each_other(self) -> None:
        with pytest.raises(RecipeError, match="leave out goals.pitch"):
            Recipe.build({"voice": {"note": "A3"}, "goals": {"pitch": 2}})

    @pytest.mark.parametrize("name", ["r.yaml", "r.json"])
    def test_round_trip_of_a_recipe(self, tmp_path: Path, name: str) -> None:
        values = {
            "pitch_curve": [[0, 0], [1.5, 3]],
            "pitch_range": 0,
            "vibrato": "off",
            "key": "c major",
            "note": 57,
            "whisper": 0.5,
            "formants": "-1.5st",
        }
        recipe = Recipe.build({"voice": values})
        path = recipe.save(tmp_path / name)
        assert Recipe.load(path).voice == recipe.voice
        text = path.read_text()
        written = json.loads(text) if name.endswith("json") else yaml.safe_load(text)
        assert written["voice"]["note"] == "A3" and written["voice"]["formants"] == "-1.5st"
        assert "voice" not in Recipe.build({}).to_dict()


class TestTracks:
    def test_range_0_is_one_pitch_and_range_2_twice_as_far(self) -> None:
        track_T = 60 + 3 * torch.randn(200)
        voiced_T = torch.rand(200) > 0.3
        assert torch.equal(asked(track_T, voiced_T, pitch_range=0), torch.full((200,), 60.0, dtype=torch.float64))
        twice_T = asked(track_T, voiced_T, pitch_range=2)
        torch.testing.assert_close(twice_T[voiced_T], 60 + 2 * (track_T[voiced_T].double() - 60))
        assert torch.equal(twice_T, held(twice_T, voiced_T))

    @pytest.mark.parametrize("phase", [0.0, 0.8, 1.6, 2.4])
    def test_vibrato_goes_and_a_glide_stays(self, phase: float) -> None:
        time_T = seconds(150)
        glide_T, vibrato_T = 58 + 2 * time_T, 0.5 * torch.sin(2 * math.pi * 5.5 * time_T + phase)
        torch.testing.assert_close(asked(glide_T, vibrato="off"), glide_T, atol=1e-6, rtol=0)
        assert rms(asked(glide_T + vibrato_T, vibrato="off") - glide_T) < 0.2 * rms(vibrato_T)

    def test_vibrato_is_taken_from_each_voiced_stretch_by_itself(self) -> None:
        track_T = torch.cat([torch.full((60,), 50.0), torch.full((20,), 90.0), torch.full((60,), 60.0)])
        voiced_T = torch.ones(140, dtype=torch.bool)
        voiced_T[60:80] = False
        result_T = asked(track_T, voiced_T, vibrato="off")
        torch.testing.assert_close(result_T[:60], torch.full((60,), 50.0, dtype=torch.float64))
        torch.testing.assert_close(result_T[80:], torch.full((60,), 60.0, dtype=torch.float64))
        assert set(result_T[60:80].round(decimals=6).tolist()) == {50.0, 60.0}

    def test_parts_end_at_jumps(self) -> None:
        track_T = torch.tensor([50.0, 50.1, 57.0, 57.1, 57.2])
        assert parts(torch.tensor([True] * 5), track_T) == [slice(0, 2), slice(2, 5)]
        assert parts(torch.tensor([True, True, False, True, True]), track_T) == [slice(0, 2), slice(3, 5)]
        assert parts(torch.zeros(5, dtype=torch.bool), track_T) == []

    def test_nearest_notes_of_a_key(self) -> None:
        track_T = torch.tensor([60.4, 61.2, 63.6, 66.4, 70.4])
        assert nearest_notes(track_T, "C major").tolist() == [60, 62, 64, 67, 71]
        assert nearest_notes(track_T, "chromatic").tolist() == [60, 61, 64, 66, 70]

    def test_notes_are_held(self) -> None:
        # a little vibrato about the border of two notes does not toggle them; unvoiced frames keep the last voiced note
        track_T = torch.tensor([60.9, 61.05, 60.95, 61.08, 63.0, 77.0, 77.0, 67.1])
        voiced_T = torch.tensor([True] * 5 + [False, False, True])
        assert notes_of(track_T, voiced_T, "C major").tolist() == [60, 60, 60, 60, 62, 62, 67, 67]

    def test_key(self) -> None:
        track_T = torch.cat([torch.full((40,), 60.3), torch.full((40,), 63.8)])
        result_T = asked(track_T, key="C major")
        assert result_T[:36].unique().tolist() == [60.0] and result_T[-36:].unique().tolist() == [64.0]
        steps_T = result_T.diff()
        assert (steps_T >= 0).all() and 2 <= int((steps_T > 0).sum()) <= 5  # a glide of some 60 ms

    def test_note_and_curve_move_all_frames_alike(self) -> None:
        track_T = 60 + torch.randn(100)
        voiced_T = torch.rand(100) > 0.5
        torch.testing.assert_close(asked(track_T, voiced_T, note="C5"), track_T.double() + 12)
        points = [(0.0, 0.0), (1.0, 3.0)]
        moved_T = asked(track_T, voiced_T, pitch_curve=points) - track_T.double()
        torch.testing.assert_close(moved_T, Curve(tuple(points)).at(seconds(100)))

    def test_pitch_stays_within_what_the_codec_has(self) -> None:
        track_T = torch.linspace(30, 95, 50)
        assert asked(track_T, pitch_curve=[(0, 40)]).max() == 99
        assert asked(track_T, pitch_curve=[(0, -40)]).min() == 27
        assert asked(track_T, pitch_range=100).aminmax() == (27, 99)

    def test_without_voice(self) -> None:
        track_T, voiced_T = torch.full((20,), 50.0), torch.zeros(20, dtype=torch.bool)
        for values in ({"vibrato": "off"}, {"pitch_range": 0}, {"note": "A3"}):
            assert torch.equal(asked(track_T, voiced_T, None, **values), track_T.double())
        assert len(asked(track_T[:0], voiced_T[:0], key="chromatic")) == 0
        assert asked(track_T[:1], key="chromatic").tolist() == [50.0]


class TestMeasures:
    def test_times(self) -> None:
        at_T = times(100, [(1.0, 2.0), (5.0, 6.0)])
        assert at_T[0] == pytest.approx(1.01) and at_T[49] == pytest.approx(1.99) and at_T[50] == pytest.approx(5.01)

    def test_vibrato_depth(self) -> None:
        time_T = torch.arange(100) / 50
        track_T = 60 + 3 * time_T + 0.5 * torch.sin(2 * math.pi * 5.5 * time_T)
        assert vibrato_cents(track_T) == pytest.approx(50 / math.sqrt(2), rel=0.05)
        assert vibrato_cents(60 + 3 * time_T) == pytest.approx(0, abs=1)
        assert vibrato_cents(track_T[:10]) is None

    @pytest.mark.parametrize("semitones", [-2, 0, 3])
    def test_envelope_shift(self, semitones: float) -> None:
        before_CN, after_CN = voice_of(130.0, 0.0), voice_of(150.0, semitones)
        assert envelope_shift(before_CN, after_CN, 24_000) == pytest.approx(semitones, abs=0.3)
        assert envelope_shift(torch.zeros(1, 24_000), after_CN, 24_000) is not None

    def test_silence_has_no_pitch(self) -> None:
        silence_CN = torch.zeros(1, 24_000)
        heard = measured_voice(Voice(note="A3", vibrato="off"), silence_CN, silence_CN, 24_000, [(0, 1)])
        assert heard["note"]["measured"] is None and heard["vibrato"]["measured"] is None


def voice_of(hz: float, formants_st: float, count: int = 24_000) -> Tensor:
    """[1, N]: harmonics below four formants, which may be moved."""
    time_N, factor = torch.arange(count) / 24_000, 2 ** (formants_st / 12)
    total_N = torch.zeros(count)
    for k in range(1, int(9000 / hz)):
        level = sum(
            gain / (1 + ((k * hz - centre * factor) / (width * factor)) ** 2)
            for centre, width, gain in ((600, 80, 1.0), (1200, 100, 0.5), (2500, 150, 0.3), (3500, 200, 0.15))
        )
        total_N += (level + 1e-3) * torch.sin(2 * math.pi * k * hz * time_N + k * k)
    return 0.05 * total_N[None]


def vibrato_tone(path: Path, midi: float = 52.0, rate: int = 24_000, channels: int = 1) -> Path:
    """Two seconds of a tone with harmonics and a vibrato of 5.5 Hz and 60 cents to each side."""
    time_N = np.arange(2 * rate) / rate
    note_N = midi + 0.6 * np.sin(2 * np.pi * 5.5 * time_N)
    phase_N = 2 * np.pi * np.cumsum(440 * 2 ** ((note_N - 69) / 12)) / rate
    tone_N = 0.05 * sum(np.sin(k * phase_N + k * k) / k for k in range(1, 30))
    soundfile.write(path, np.stack([tone_N] * channels, axis=1), rate, "FLOAT")
    return path


@pytest.fixture(scope="module")
def vectors(source_filter: SourceFilter) -> tuple[SAE, dict[str, ControlVector]]:
    """An SAE whose decoder spans the latent, and its control vectors."""
    torch.manual_seed(0)
    sae = SAE(64, 128, activation="relu")
    one = F.one_hot(torch.tensor([0, 1]), 64).float()
    louder = F.pad(F.normalize(source_filter.directions.detach()[0], dim=0) / 3, (2, 0))
    directions = {
        "loudness": louder,
        "pitch": one[0] / 6,
        "voicing": one[1],
        "whisper": torch.tensor(WHISPER),
    }
    W_dec = sae.W_dec.detach()
    return sae, {name: from_direction(d, W_dec, name, site="latent") for name, d in directions.items()}


Edit = Callable[..., Outcome]


@pytest.fixture
def edit(source_filter: SourceFilter, vectors: tuple[SAE, dict[str, ControlVector]], tmp_path: Path) -> Edit:
    sae, known = vectors

    def run(source: Path, **values: Any) -> Outcome:
        recipe = Recipe.build({"model": "source_filter", "saes": {"latent": "sae"}, **values})
        steered = SteeredModel(wrap_model(source_filter), {"latent": sae})
        editor = Editor(recipe, steered=steered, vectors=known, pitch=False)
        return editor.edit_file(source, tmp_path / "edited.wav", force=True)

    return run


class TestEdits:
    def test_shifts_with_curves(
        self, source_filter: SourceFilter, vectors: tuple[SAE, dict[str, ControlVector]]
    ) -> None:
        codec = wrap_model(source_filter)
        assert isinstance(codec, Codec) and codec.pitch is not None
        z_BTD = torch.randn(1, 30, 64)
        z_BTD[..., 1] = 3.0
        voice = Voice(pitch_curve=[(0, 0), (10, 10)], whisper=0.5)
        make = VoiceEdits(voice, codec, vectors[1], None, [(0.0, 3.0)], [])
        edits = make(z_BTD, torch.zeros(1, 9600), 2.0)
        assert list(edits) == ["latent"]
        higher, whispered = edits["latent"]
        time_T = 2.0 + seconds(30)
        for shift, strength_T in (
            (higher, time_T),
            (whispered, torch.full((30,), 0.5 / (1 + math.exp(-6.0)))),
        ):
            assert isinstance(shift, Shift) and shift.during == ((0.0, 3.0),) and isinstance(shift.strength, Curve)
            torch.testing.assert_close(shift.strength.at(time_T), strength_T.double(), atol=1e-5, rtol=0)

        steered = SteeredModel(codec, {"latent": vectors[0]})
        with at_time(2.0):
            moved_BTD = steered.changes({"latent": [higher]})["latent"](z_BTD)
        torch.testing.assert_close(codec.pitch(moved_BTD) - codec.pitch(z_BTD), time_T[None].float(), atol=1e-3, rtol=0)

    def test_the_loudest_voiced_channel_counts(
        self, source_filter: SourceFilter, vectors: tuple[SAE, dict[str, ControlVector]]
    ) -> None:
        codec = wrap_model(source_filter)
        assert isinstance(codec, Codec)
        z_CTD = torch.zeros(3, 30, 64)
        z_CTD[..., 0] = torch.tensor([0.0, 1.0, 2.0])[:, None]
        z_CTD[..., 1] = torch.tensor([3.0, 3.0, -3.0])[:, None]
        audio_CN = torch.randn(3, 30 * 320) * torch.tensor([0.01, 0.1, 1.0])[:, None]
        make = VoiceEdits(Voice(note=60), codec, vectors[1], None, None, [(z_CTD, audio_CN, slice(0, 30))])
        assert (make.row, make.median) == (1, 66.0)

    def test_nothing_voiced(self, source_filter: SourceFilter, vectors: tuple[SAE, dict[str, ControlVector]]) -> None:
        codec = wrap_model(source_filter)
        assert isinstance(codec, Codec)
        passages = [(torch.full((1, 30, 64), -3.0), torch.zeros(1, 30 * 320), slice(0, 30))]
        with pytest.raises(EditError, match="no pitch to move to a note"):
            VoiceEdits(Voice(note=60), codec, vectors[1], None, None, passages)
        assert VoiceEdits(Voice(pitch_range=0), codec, vectors[1], None, None, passages).median is None


class TestFiles:
    """What CREPE measures of a whole edit, with the prototype's weights."""

    @pytest.fixture(autouse=True)
    def _crepe(self) -> None:
        pytest.importorskip("torchcrepe", reason="extra eval: pitch by CREPE")

    def test_range(self, edit: Edit, tmp_path: Path) -> None:
        heard = edit(vibrato_tone(tmp_path / "a.wav"), voice={"pitch_range": 0}).voice["pitch_range"]
        assert heard["before"] > 50 and heard["after"] < 20

    def test_vibrato(self, edit: Edit, tmp_path: Path) -> None:
        heard = edit(vibrato_tone(tmp_path / "a.wav"), voice={"vibrato": "off"}).voice["vibrato"]
        assert heard["before"] > 30 and heard["after"] < 0.5 * heard["before"]

    def test_note_of_a_stereo_file_at_another_rate(self, edit: Edit, tmp_path: Path) -> None:
        outcome = edit(vibrato_tone(tmp_path / "a.wav", rate=44_100, channels=2), voice={"note": "A3"})
        assert outcome.voice["note"]["measured"] == pytest.approx(57, abs=0.25)
        assert outcome.requested == {} and outcome.met and not outcome.unchanged

    def test_key_and_curve(self, edit: Edit, tmp_path: Path) -> None:
        source = vibrato_tone(tmp_path / "a.wav", midi=54.4)
        heard = edit(source, voice={"key": "C major", "vibrato": "off"}).voice["key"]
        assert heard["after"] > 0.9 > 0.5 > heard["before"]
        heard = edit(source, voice={"pitch_curve": "0:0,1:3"}).voice["pitch_curve"]
        assert heard["measured"] < 25

    def test_whisper(self, edit: Edit, tmp_path: Path) -> None:
        heard = edit(vibrato_tone(tmp_path / "a.wav"), voice={"whisper": 1}).voice["whisper"]
        assert heard["before"] > 0.8 and heard["after"] < 0.2

    def test_goals_are_reached_beside_it(self, edit: Edit, tmp_path: Path) -> None:
        outcome = edit(vibrato_tone(tmp_path / "a.wav"), voice={"note": "A3"}, goals={"loudness": "+3dB"})
        assert outcome.met and outcome.measured["loudness"] == pytest.approx(3.0, abs=0.5)
        assert outcome.voice["note"]["measured"] == pytest.approx(57, abs=0.25)

    @pytest.mark.parametrize("semitones", [-3, 2])
    def test_formants(self, edit: Edit, tmp_path: Path, semitones: float) -> None:
        source = tmp_path / "a.wav"
        soundfile.write(source, voice_of(140, 0).numpy().T, 24_000, "FLOAT")
        heard = edit(source, voice={"formants": semitones}).voice["formants"]
        assert heard["measured"] == pytest.approx(semitones, abs=0.5)

    def test_formants_of_two_separate_sounds(self, edit: Edit, tmp_path: Path) -> None:
        source = tmp_path / "a.wav"
        both = torch.cat([voice_of(140, 0), voice_of(230, 3)]).numpy().T
        soundfile.write(source, both, 24_000, "FLOAT")
        with pytest.raises(EditError, match="edit each channel as a file of its own"):
            edit(source, voice={"formants": 2})

    def test_only_during_the_spans(self, edit: Edit, tmp_path: Path) -> None:
        source = vibrato_tone(tmp_path / "a.wav")
        outcome = edit(source, voice={"note": "A3"}, during=[[0.5, 1.5]])
        before, after = (soundfile.read(path)[0] for path in (source, tmp_path / "edited.wav"))
        assert np.array_equal(before[:12_000], after[:12_000]) and np.array_equal(before[36_000:], after[36_000:])
        assert not np.allclose(before[18_000:30_000], after[18_000:30_000], atol=0.01)
        assert outcome.kept["outside_unchanged"]


class TestRefusals:
    def test_a_missing_vector_is_named(self, tmp_path: Path, source_filter: SourceFilter) -> None:
        sae = SAE(64, 128, activation="relu")
        sae.save(tmp_path / "sae")
        save_vectors(
            {"pitch": ControlVector(torch.zeros(128), site="latent")}, tmp_path / "sae" / "vectors.safetensors"
        )
        values = {"model": "source_filter", "saes": {"latent": str(tmp_path / "sae")}}
        assert list(Recipe.build({**values, "voice": {"note": "A3"}}).control_vectors()) == ["pitch"]
        with pytest.raises(RecipeError, match="voice: no control vector 'whisper' beside"):
            Recipe.build({**values, "voice": {"note": "A3", "whisper": 1}}).control_vectors()
        steered = SteeredModel(wrap_model(source_filter), {"latent": sae})
        with pytest.raises(RecipeError, match="voice: no control vector 'whisper' among"):
            Editor(Recipe.build({**values, "voice": {"whisper": 1}}), steered=steered, vectors={})
        elsewhere = SteeredModel(wrap_model(source_filter), {"decoder.0": SAE(256, 512)})
        with pytest.raises(EditError, match="there is no SAE at 'latent'"):
            Editor(Recipe.build({**values, "voice": {"formants": 1}}), steered=elsewhere, vectors={})

    def test_a_codec_without_a_pitch_coordinate(self, codec_folder: Path, sae_folder: Path) -> None:
        values = {"model": str(codec_folder), "saes": {"latent": str(sae_folder)}}
        with pytest.raises(EditError, match="needs a codec with a pitch coordinate, such as starter:codec"):
            Editor(Recipe.build({**values, "voice": {"vibrato": "off"}}))

"""`steer transcribe`, and `steer evaluate false-alarms`, whose recipe it takes.

Both with the recogniser that writes "hello" unless axis 1, how far a sound is below zero, is above 0.8 (`listener`).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import hooks
from hooks import Transcriber, Transcript
from steer.sae import SAE, SAEInfo
from steer.vectors import ControlVector, save_vectors
from tests.hard_sounds import case

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(steer: Run, monkeypatch: pytest.MonkeyPatch, listener: Transcriber) -> Run:
    opened = hooks.open_model

    def open_model(name: str, device: str = "cpu") -> object:
        return listener if name == "listener" else opened(name)

    for where in ("hooks", "steer.recipe", "apps.batch.transcribe_work"):
        monkeypatch.setattr(f"{where}.open_model", open_model)

    return steer


@pytest.fixture
def saes(tmp_path: Path) -> list[Path]:
    """One for each site; feature i is axis i."""
    folders = []
    for site in ("ear.0", "ear.1"):
        sae = SAE(4, 4, "relu", info=SAEInfo(model="listener", site=site))
        sae.W_dec.data.copy_(torch.eye(4))
        sae.W_enc.data.copy_(torch.eye(4))
        folders.append(sae.save(tmp_path / "saes" / site))
    return folders


def write(path: Path, level: float, seconds: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(16_000 * seconds), level), 16_000)
    return path


@pytest.fixture
def recipe(tmp_path: Path, saes: list[Path]) -> Path:
    """What is below zero doubled at one site, and doubled again at the other: 0.25 becomes 1."""
    path = tmp_path / "r.yaml"
    path.write_text(
        "model: listener\nsaes: {ear.0: saes/ear.0, ear.1: saes/ear.1}\n"
        "edits: [{scale: {1: 2}, site: ear.0}, {scale: {1: 2}, site: ear.1}]\n"
    )
    return path


def test_a_file_as_the_model_is_and_by_a_recipe(run: Run, tmp_path: Path, recipe: Path) -> None:
    noise, speech = write(tmp_path / "noise.wav", -0.25), write(tmp_path / "speech.wav", 0.5)
    assert run("transcribe", noise, "--model", "listener") == (0, "hello\n", "")
    assert run("transcribe", noise, "--recipe", recipe) == (0, "\n", "")
    assert run("transcribe", speech, "--recipe", recipe) == (0, "hello\n", "")


def test_a_recipe_of_directions_needs_no_sae(run: Run, tmp_path: Path) -> None:
    noise, speech = write(tmp_path / "in" / "noise.wav", -0.25), write(tmp_path / "in" / "speech.wav", 0.5)
    ways = {
        site: ControlVector(torch.tensor([0.0, 1, 0, 0]), site=site, model="listener") for site in ("ear.0", "ear.1")
    }
    save_vectors(ways, tmp_path / "ways.safetensors")
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: listener\nedits: [{add_direction: ways.safetensors, strength: 0.3}]\n")
    assert run("transcribe", noise, "--recipe", recipe) == (0, "\n", "")  # 0.25 and twice 0.3 are more than 0.8
    recipe.write_text("model: listener\nedits: [{add_direction: ways.safetensors#ear.0, strength: 0.3}]\n")
    assert run("transcribe", noise, "--recipe", recipe) == (0, "hello\n", "")
    # a batch, where another file of directions is done anew
    out, told = tmp_path / "out", f"{noise}: hello\n{speech}: hello\n"
    for _ in range(2):
        assert run("transcribe", tmp_path / "in", "--recipe", recipe, "-o", out)[:2] == (0, told)
    save_vectors({"ear.0": 5 * ways["ear.0"]}, tmp_path / "ways.safetensors")
    assert run("transcribe", noise, "--recipe", recipe, "-o", out)[:2] == (0, "\n")


def test_a_bad_file_does_not_stop_the_rest(run: Run, tmp_path: Path, recipe: Path) -> None:
    folder = tmp_path / "in"
    noise, speech = write(folder / "a.wav", -0.25), write(folder / "deep" / "c.wav", 0.5)
    bad = folder / "b.wav"
    bad.write_text("no sound")
    out = tmp_path / "out"
    code, shown, err = run("transcribe", folder, "--recipe", recipe, "-o", out, "--json")
    assert code == 1
    assert err.count("\n") == err.count(str(bad)) == 1 and err.startswith(f"{bad}: ") and "not a sound file" in err
    told = json.loads(shown)
    assert told["model"] == "listener" and len(told["recipe"]["edits"]) == 2
    first, second, third = told["files"]
    silent = {"text": "", "language": "en", "segments": [{"start": 0.0, "end": 1.0, "text": ""}]}
    assert first == {"source": str(noise), **silent}
    assert second.keys() == {"source", "target", "error"}
    assert (third["source"], third["text"]) == (str(speech), "hello")
    assert (out / "a.wav.txt").read_text() == "\n" and (out / "deep" / "c.wav.txt").read_text() == "hello\n"
    assert sorted(path.name for path in out.rglob("*.*")) == ["a.wav.txt", "c.wav.txt", "journal.jsonl"]
    # what is done stays as it is; what would be another text now is done again; what others wrote is left alone
    before = (out / "a.wav.txt").stat().st_mtime_ns
    assert run("transcribe", folder, "--recipe", recipe, "-o", out)[0] == 1
    assert (out / "a.wav.txt").stat().st_mtime_ns == before
    (out / "c.wav.txt").write_text("mine")
    code, shown, err = run("transcribe", folder / "*.wav", speech, "--model", "listener", "-o", out)
    assert code == 1 and "c.wav.txt: exists already" in err
    assert shown == f"{noise}: hello\n"
    run("transcribe", speech, "--model", "listener", "-o", out, "--force")
    assert (out / "c.wav.txt").read_text() == "hello\n"


def test_mistakes_are_one_line(run: Run, tmp_path: Path, recipe: Path) -> None:
    noise = write(tmp_path / "noise.wav", -0.25)

    def failing(*arguments: object) -> str:
        code, _, err = run("transcribe", *arguments)
        assert code == 2
        assert err.count("\n") == 1
        return err

    def with_recipe(text: str) -> str:
        (tmp_path / "bad.yaml").write_text(text)
        return failing(noise, "--recipe", tmp_path / "bad.yaml")

    assert "no such file" in failing(tmp_path / "none.wav", "--model", "listener")
    assert "no sound files there" in failing(tmp_path / "saes", "--model", "listener")
    assert "is a codec and writes no words" in failing(noise, "--model", "starter:codec")
    assert "ear.7" in with_recipe("model: listener\nsaes: {ear.7: saes/ear.0}")
    assert "goals (loudness)" in with_recipe("model: listener\nsaes: {ear.0: saes/ear.0}\ngoals: {loudness: 3}")
    assert "names no site" in with_recipe(
        "model: listener\nsaes: {ear.0: saes/ear.0, ear.1: saes/ear.1}\nedits: [{ablate: [1]}]"
    )
    SAE(8, 8, "relu", info=SAEInfo(site="ear.0")).save(tmp_path / "wide")
    assert "8 wide, but site 'ear.0' of listener is 4 wide" in with_recipe("model: listener\nsaes: {ear.0: wide}")


def test_other_errors_are_one_line_too(
    run: Run, tmp_path: Path, listener: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(source: object, **options: object) -> None:
        raise ValueError("no such option\nas that")

    monkeypatch.setattr(listener, "transcribe", broken)
    path = write(tmp_path / "a.wav", 0.5)
    code, _, err = run("transcribe", path, "--model", "listener")
    assert (code, err) == (2, f"steer: {path}: ValueError: no such option\n")


def test_a_model_that_knows_english_alone_is_not_told(
    run: Run, tmp_path: Path, listener: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, object]] = []
    monkeypatch.setattr(listener, "transcribe", lambda source, **options: told.append(options) or Transcript(""))
    path = write(tmp_path / "a.wav", 0.5)
    flags = ("transcribe", path, "--model", "listener", "--language")
    assert run(*flags, "de")[0] == 0
    listener.module.is_multilingual = False  # type: ignore[assignment]
    assert run(*flags, "en")[0] == 0
    assert told == [{"language": "de"}, {}]
    code, _, err = run(*flags, "de")
    assert (code, err) == (2, "steer: listener knows English alone; leave out the language de\n")


# --- the starter ---


@pytest.fixture
def starter_asr(
    run: Run, listener: Transcriber, saes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listener and its SAEs as the starter recogniser."""
    (tmp_path / "saes").rename(tmp_path / "asr")
    (tmp_path / "asr" / "config.json").write_text("{}")
    monkeypatch.setattr("hooks.starter.FOLDER", tmp_path)
    opened = hooks.open_model
    for where in ("hooks", "steer.recipe", "apps.batch.transcribe_work"):
        monkeypatch.setattr(
            f"{where}.open_model", lambda name, **to: listener if name == "starter:asr" else opened(name)
        )


@pytest.mark.usefixtures("starter_asr")
def test_the_starter_is_the_recogniser_where_none_is_named(run: Run, tmp_path: Path) -> None:
    noise = write(tmp_path / "noise.wav", -0.25)
    assert run("transcribe", noise) == (0, "hello\n", "")
    (tmp_path / "r.yaml").write_text("edits: [{scale: {1: 4}, site: ear.1}]")
    assert run("transcribe", noise, "--recipe", tmp_path / "r.yaml") == (0, "\n", "")
    # the same weights elsewhere take the same edits
    assert run("transcribe", noise, "--recipe", tmp_path / "r.yaml", "--model", "listener") == (0, "\n", "")
    code, shown, _ = run("features", noise, "--model", "starter:asr", "--site", "ear.1", "--json")
    assert code == 0 and [entry["site"] for entry in json.loads(shown)] == ["ear.1"]
    code, _, err = run("features", noise, "--model", "starter:asr", "--site", "ear.7")
    assert (code, err) == (2, "steer: --site ear.7: ear.0, ear.1 have theirs, pass --sae for the SAE that goes there\n")


# --- steer evaluate false-alarms ---


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    for subset, level, text in (("noise", -0.5, ""), ("talk", 0.5, "hello")):
        rows = [["path", "split", "text"]]
        for split in ("train", "valid", "test"):
            for index in range(2):
                write(tmp_path / "audio" / subset / f"{split}{index}.wav", level * (1 + index / 100), 0.2)
                rows.append([f"{split}{index}.wav", split, text])
        with (tmp_path / "audio" / subset / "manifest.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return tmp_path / "audio"


@pytest.mark.parametrize("by", ["sae", "recipe"])
def test_false_alarms_end_in_a_recipe(run: Run, tmp_path: Path, audio: Path, saes: list[Path], by: str) -> None:
    for package, extra in (("whisper", "whisper"), ("jiwer", "whisper"), ("matplotlib", "eval")):
        pytest.importorskip(package, reason=f"extra {extra}")
    (tmp_path / "saes.yaml").write_text("model: listener\nsaes: {ear.0: saes/ear.0, ear.1: saes/ear.1}\n")
    what = ["--sae", saes[0], "--sae", saes[1]] if by == "sae" else ["--recipe", tmp_path / "saes.yaml"]
    out = tmp_path / "out"
    flags = ("--no-speech", "noise", "--speech", "talk", "--strengths", "1,2", "--counts", "2", "--draws", 1)
    code, shown, err = run("evaluate", "false-alarms", "--audio", audio, "-o", out, *what, *flags)
    assert (code, err) == (0, "")
    assert "false-alarms.yaml" in shown
    report = json.loads((out / "false-alarms.json").read_text())
    rows = {row["method"]: row for row in report["rows"]}
    assert rows["baseline"]["false alarms"]["value"] == 1
    assert rows["SAE steering"]["false alarms"]["value"] == 0
    assert "SAE steering" in (out / "false-alarms.md").read_text()
    noise = audio / "noise" / "test0.wav"
    assert run("transcribe", noise, "--model", "listener")[1] == "hello\n"
    assert run("transcribe", noise, "--recipe", out / "false-alarms.yaml") == (0, "\n", "")
    # a later run that finds no edit leaves none of an earlier one
    weak = ["0.01" if flag == "1,2" else flag for flag in flags]
    assert run("evaluate", "false-alarms", "--audio", audio, "-o", out, *what, *weak)[0] == 0
    assert not (out / "false-alarms.yaml").exists()


@pytest.mark.usefixtures("starter_asr")
def test_false_alarms_of_the_starter(run: Run, tmp_path: Path, audio: Path) -> None:
    for package, extra in (("whisper", "whisper"), ("jiwer", "whisper"), ("matplotlib", "eval")):
        pytest.importorskip(package, reason=f"extra {extra}")
    flags = ("--no-speech", "noise", "--speech", "talk", "--strengths", "1,2", "--counts", "2", "--draws", 1)
    out = tmp_path / "out"
    assert run("evaluate", "false-alarms", "--audio", audio, "-o", out, *flags)[0] == 0
    assert "model: starter:asr" in (out / "false-alarms.yaml").read_text()
    assert run("transcribe", audio / "noise" / "test0.wav", "--recipe", out / "false-alarms.yaml") == (0, "\n", "")


def test_false_alarms_mistakes_are_one_line(run: Run, tmp_path: Path, audio: Path, saes: list[Path]) -> None:
    def failing(*arguments: object) -> str:
        code, _, err = run("evaluate", "false-alarms", "--audio", audio, "-o", tmp_path / "out", *arguments)
        assert code == 2
        assert err.count("\n") == 1
        return err

    sets = ("--no-speech", "noise", "--speech", "talk")
    assert "split 'train' has no clips without speech" in failing("--speech", "talk", "--sae", saes[0])
    assert "no clips with speech and its text" in failing("--no-speech", "noise", "--speech", "noise", "--sae", saes[0])
    assert "saes/ear.0 is at site 'ear.0' already" in failing(*sets, "--sae", saes[0], "--sae", saes[0])
    assert "--strengths 1,x: " in failing(*sets, "--sae", saes[0], "--strengths", "1,x")
    assert "is a codec and writes no words" in failing(*sets, "--sae", "starter:codec/latent")


# --- formats, and what is told ---


def test_subtitles_go_to_files_and_to_the_terminal(run: Run, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    sound = write(folder / "a.wav", 0.5)
    shown = "1\n00:00:00,000 --> 00:00:01,000\nhello\n"
    assert run("transcribe", sound, "--model", "listener", "--format", "srt") == (0, shown, "")
    assert run("transcribe", folder, "--model", "listener", "--format", "srt", "-o", out)[0] == 0
    assert (out / "a.wav.srt").read_text() == shown
    assert run("transcribe", folder, "--model", "listener", "--format", "vtt", "-o", out)[0] == 0
    assert (out / "a.wav.vtt").read_text() == "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nhello\n"
    assert run("transcribe", folder, "--model", "listener", "--format", "json", "-o", out)[0] == 0
    told = json.loads((out / "a.wav.json").read_text())
    assert told == {"text": "hello", "language": "en", "segments": [{"start": 0.0, "end": 1.0, "text": "hello"}]}
    code, _, err = run("transcribe", sound, "--model", "listener", "--format", "srt", "--words")
    assert code == 2 and err == "steer: --words: srt has no place for the times of words; use --format json or vtt\n"


def test_what_there_is_to_know_of_a_sound_is_told(run: Run, tmp_path: Path) -> None:
    path = case("wav-size-0/cut-off.wav", tmp_path)
    note = "its header does not say how long it is; the 1.00 s that are there are read"
    assert run("transcribe", path, "--model", "listener") == (0, "hello\n", f"{path}: {note}\n")
    samples = 0.3 * np.sin(np.arange(16_000) * 0.1)
    soundfile.write(tmp_path / "anti.wav", np.stack([samples, -samples], axis=1), 16_000)
    code, shown, err = run("transcribe", tmp_path / "anti.wav", "--model", "listener", "--json")
    (told,) = json.loads(shown)["files"]
    assert code == 0 and err.count("\n") == 1 and told["notes"][0] in err
    assert "cancel each other in a mono mix" in told["notes"][0]


def test_an_unknown_language_is_told_once_before_the_first_file(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("whisper")
    dims = {"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 32, "n_audio_head": 2, "n_audio_layer": 1}
    dims |= {"n_vocab": 51_865, "n_text_ctx": 448, "n_text_state": 32, "n_text_head": 2, "n_text_layer": 1}
    import whisper

    module = whisper.model.Whisper(whisper.model.ModelDimensions(**dims))
    torch.nn.init.normal_(module.decoder.positional_embedding)
    torch.save({"dims": dims, "model_state_dict": module.state_dict()}, tmp_path / "model.pt")
    for name in ("a.wav", "b.wav"):
        write(tmp_path / "takes" / name, 0.5)
    flags = ("transcribe", tmp_path / "takes", "-o", tmp_path / "out", "--model", f"whisper:{tmp_path / 'model.pt'}")
    code, shown, err = run(*flags, "--language", "zh-CN")
    assert (code, shown, err.count("\n")) == (2, "", 1)
    assert "unknown language 'zh-CN'; did you mean zh? it knows af, am, " in err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*.txt"))


def test_times_of_words_go_to_json_on_the_terminal_too(
    run: Run, tmp_path: Path, listener: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [{"word": " hello", "start": 0.0, "end": 0.5}]
    asked: list[dict[str, object]] = []

    def transcribe(source: object, **options: object) -> Transcript:
        asked.append(options)
        return Transcript("hello", [{"start": 0.0, "end": 1.0, "text": " hello", "words": words}], "en")

    monkeypatch.setattr(listener, "transcribe", transcribe)
    monkeypatch.setattr(listener, "timed", lambda words: {"word_timestamps": words})
    path = write(tmp_path / "a.wav", 0.5)
    code, shown, _ = run("transcribe", path, "--model", "listener", "--words", "--json")
    assert code == 0 and json.loads(shown)["files"][0]["segments"][0]["words"] == words
    assert asked == [{"word_timestamps": True}]
    assert run("transcribe", path, "--model", "listener")[0] == 0 and asked[1] == {}


def test_how_words_are_found(run: Run, tmp_path: Path, listener: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.wav", 0.5)
    flags = ("transcribe", path, "--model", "listener")
    code, _, err = run(*flags, "--beam-size", 5)
    assert (code, err) == (2, "steer: listener: cannot be given a temperature, beams or timestamps\n")
    told: list[object] = []
    monkeypatch.setattr(listener, "decoding", lambda *given, **named: told.append((given, named)) or {})
    assert run(*flags)[0] == 0
    assert run(*flags, "--temperature", "0,0.5", "--beam-size", 5, "--no-timestamps")[0] == 0
    assert told[0] == ((), {}) and told[-1] == ((), {"temperature": (0.0, 0.5), "beam_size": 5, "timestamps": False})
    for wrong in ("-1", "a", "0,,1"):
        code, _, err = run(*flags, "--temperature", wrong)
        assert code == 2 and err.startswith("steer: --temperature: ") and err.count("\n") == 1
    code, _, err = run(*flags, "--no-timestamps", "--format", "srt")
    assert code == 2 and "--no-timestamps: subtitles" in err

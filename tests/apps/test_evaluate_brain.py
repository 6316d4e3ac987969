"""`steer evaluate brain` and what it refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from evaluation.brain_study import Sounds
from evaluation.eeg_simulation import Planted, pink_noise, responses
from steer import SAE, SteeredModel, open_model
from steer.sae import SAEInfo

pytest.importorskip("scipy", reason="extra eeg")
pytest.importorskip("matplotlib", reason="extra eval")
Run = Callable[..., tuple[int, str, str]]
RATE, RUNS, SUBJECTS, SECONDS = 64.0, 5, 8, 30
FEATURE = 6
HEAD = "subject,run,audio,eeg,start_s,split"
FLAGS = ("--channel", "Cz", "--rate", int(RATE), "--fires", 0, "--joint", 2, "--shifts", 20)


@pytest.fixture(scope="module")
def mirror(codec_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature for either sign of each of the latent's 16 axes."""
    folder = tmp_path_factory.mktemp("mirror")
    sae = SAE(16, 32, "relu", info=SAEInfo(model=str(codec_folder), site="latent"))
    with torch.no_grad():
        sae.W_dec.copy_(torch.cat([torch.eye(16), -torch.eye(16)]))
        sae.W_enc.copy_(sae.W_dec.T)
    sae.save(folder)
    return folder


@pytest.fixture(scope="module")
def heard(codec_folder: Path, mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of eight subjects whose EEG at Cz, from second 2 on, answers one feature; at Fz it is noise."""
    folder = tmp_path_factory.mktemp("heard")
    rng = np.random.default_rng(0)
    for run in range(RUNS):
        noise = rng.standard_normal(SECONDS * 24_000)
        level = np.repeat(10 ** rng.uniform(-2.5, -0.5, SECONDS * 5), 4800)  # another one five times a second
        soundfile.write(folder / f"{run}.wav", np.clip(level * noise, -1, 1), 24_000)
    steered = SteeredModel(open_model(codec_folder), SAE.load(mirror))
    sounds = {str(run): folder / f"{run}.wav" for run in range(RUNS)}
    tracks = Sounds.of(steered.model, steered.sites["latent"], sounds, RATE, "linear")
    _, features, _ = tracks.features(steered.saes["latent"], None, 0, 0)
    evoked = responses(features, [Planted(FEATURE, 0.2, -1)], RATE)
    lines = [HEAD]
    for subject in range(SUBJECTS):
        for run in range(RUNS):
            before = int(2 * RATE)
            length = evoked[str(run)].shape[1] + 2 * before
            cz, fz = pink_noise(2, length, RATE, rng)
            cz[before:-before] += 0.5 * evoked[str(run)][0]
            np.savez(folder / f"{subject}-{run}.npz", eeg=np.stack([fz, cz], 1), fs=RATE, channels=["Fz", "Cz"])
            lines.append(f"{subject},{run},{run}.wav,{subject}-{run}.npz,2,{'dev' if run < 2 else 'test'}")
    (folder / "manifest.csv").write_text("\n".join(lines))
    return folder / "manifest.csv"


def test_what_follows_the_eeg(steer: Run, heard: Path, mirror: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("evaluate", "brain", "--manifest", heard, "--sae", mirror, "-o", out, "--map", *FLAGS)
    code, shown, err = steer(*command)
    assert (code, err) == (0, "")
    report = json.loads((out / "brain.json").read_text())
    features = {row["feature"]: row for row in report["clips"]}
    assert features[FEATURE]["found"] and features[FEATURE]["t"] < -8
    assert abs(features[FEATURE]["lag in ms"] - 200) <= 16
    assert features[FEATURE]["r, p by shifts"] == pytest.approx(1 / 21)
    rows = {row["stimulus"]: row for row in report["rows"]}
    first, *controls = rows
    assert first == "SAE features" and rows[first]["found"] >= 1
    assert {"dimensions of the activation", "envelope", "onset", "envelope and onset in one model"} <= set(controls)
    assert rows["SAE features, of another run's sound"]["found"] < rows[first]["found"]
    assert report["about"]["subjects"] == list(map(str, range(SUBJECTS)))
    assert report["about"]["runs"] == {"dev": ["0", "1"], "test": ["2", "3", "4"]}
    over = report["about"]["t by channel"]
    assert over["channels"] == ["Fz", "Cz"]
    fz, cz = over["features"][str(FEATURE)]
    assert cz == pytest.approx(features[FEATURE]["t"], rel=1e-6) and abs(fz) < 4
    assert (out / "brain.png").read_bytes().startswith(b"\x89PNG")
    assert "SAE features" in (out / "brain.md").read_text()
    assert "8 subjects: the first of" in shown and "explain more than envelope and onset" in shown
    # the same again is not measured again, but another EEG is
    assert "measured already" in steer(*command)[1]
    assert "measured already" not in steer(*command, "--channel", "Fz", "--json")[1]
    noise = json.loads((out / "brain.json").read_text())
    assert noise["rows"][0]["found"] == 0 and "0 of" in noise["about"]["notes"][0]


def test_a_simulation(steer: Run, heard: Path, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evaluation import brain_power

    monkeypatch.setattr(brain_power, "RUN_S", 25.0)
    monkeypatch.setattr(brain_power, "LEAST_S", 10.0)
    lines = ["path,split", *(f"{run}.wav,test" for run in range(RUNS))]
    (heard.parent / "plain.csv").write_text("\n".join(lines))
    flags = ("--simulate", "--rounds", 1, "--rate", int(RATE), "--fires", 0, "--sae", mirror)
    code, shown, err = steer("evaluate", "brain", "--audio", heard.parent / "plain.csv", "-o", tmp_path, *flags)
    assert (code, err) == (0, "")
    report = json.loads((tmp_path / "brain.json").read_text())
    assert len(report["rows"]) == 3 * (1 + 4 + 1)
    last = next(row for row in report["rows"] if row["r"] == 0.05 and row["subjects"] == 19)
    assert last["planted found, of 5"]["value"] >= 1
    assert "says nothing about brains" in shown
    assert (tmp_path / "brain.png").exists()


def test_bad_input_is_one_line(
    steer: Run, heard: Path, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*flags: object, lines: list[str] | None = None, manifest: Path | None = None) -> str:
        path = manifest or heard
        if lines is not None:
            path = heard.parent / "other.csv"
            path.write_text("\n".join([HEAD, *lines]))
        out = tmp_path / "deep" / "out"
        code, _, err = steer("evaluate", "brain", "--manifest", path, "--sae", mirror, "-o", out, *FLAGS, *flags)
        assert code == 2, err
        assert err.startswith("steer: ") and err.count("\n") == 1, err
        assert not (tmp_path / "deep").exists()
        return err

    rows = heard.read_text().splitlines()[1:]
    first, *others = rows
    assert "gone.csv" in failing(manifest=tmp_path / "gone.csv")
    assert "there is no EEG file" in failing(lines=[first.replace(".npz", "-gone.npz"), *others])
    assert "row 2: no audio" in failing(lines=[first.replace("0.wav", ""), *others])
    assert "there is no sound" in failing(lines=[row.replace("0.wav", "gone.wav") for row in rows])
    assert "need two or more" in failing(lines=[row for row in rows if row.startswith("0,")])
    assert "no channel 'Oz'; there are 2: Fz, Cz" in failing("--channel", "Oz")
    assert "give two runs of split dev, or --ridge" in failing(lines=[row for row in rows if ",1,1.wav" not in row])
    assert "no runs of split 'test'" in failing(lines=[row.replace("test", "dev") for row in rows])
    assert "fires in 1000 frames a second" in failing("--fires", 1000)
    soundfile.write(heard.parent / "short.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 24_000 * 18), 24_000)
    assert "run 4 lasts 18.0 s, too short to be shifted by 10 s; pass --shifts 0" in failing(
        lines=[row.replace("4.wav", "short.wav") for row in rows]
    )
    assert "--lags 0.5,0" in failing("--lags", "0.5,0")
    assert "--band" in failing("--band", "1,x")
    assert "has no site 'nowhere'" in failing("--site", "nowhere")
    assert "no such atlas" in failing("--atlas", tmp_path / "gone.safetensors")
    assert "needs 4 runs or more" in failing("--simulate", "--columns", "path=audio")
    # a wrong rate
    eeg = np.load(heard.parent / "0-0.npz")
    np.savez(heard.parent / "wrong.npz", eeg=eeg["eeg"], channels=eeg["channels"], fs=4 * RATE)
    assert "check fs and start_s" in failing(lines=[first.replace("0-0.npz", "wrong.npz"), *others])
    # MNE is asked for before anything is read
    (heard.parent / "a.edf").touch()
    monkeypatch.setitem(sys.modules, "mne", None)
    message = failing(lines=[first.replace("0-0.npz", "a.edf"), *others])
    assert "mne is not installed: pip install 'audiosteer[eeg]'" in message

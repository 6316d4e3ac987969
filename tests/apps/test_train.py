"""`steer train`: one site, all layers, seeds and processes, what it costs downstream, and runs that are killed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

import hooks
from apps.cli import main
from hooks import Transcriber
from hooks.store import ActivationStore
from steer.checkpoints import LOG, STATE
from steer.sae import SAE

Run = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]

SMALL = ("--expansion", 2, "--k", 4, "--batch-size", 64)


def manifest(folder: Path, rows: list[tuple[str, str, float, str]], label: str = "") -> None:
    """Sounds of the given seconds, and the manifest: [(path, split, seconds, text)]."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "split", "text", "label"])
        for path, split, seconds, text in rows:
            soundfile.write(folder / path, 0.3 * rng.random(round(16_000 * seconds)), 16_000)
            table.writerow([path, split, text, label])


# --- one site ---


def test_train_and_go_on(steer: Run, sound: Write, codec_folder: Path, tmp_path: Path) -> None:
    for name in ("in/a.wav", "in/b.wav"):
        sound(name, 2.0)
    flags = ("--model", codec_folder, *SMALL, "--steps", 60)
    code, out, _ = steer("train", tmp_path / "in", "-o", tmp_path / "out", *flags, "--json")
    assert code == 0
    folder = tmp_path / "out" / "latent"
    sae = SAE.load(folder)
    assert (sae.d_in, sae.d_sae, sae.info.site) == (16, 32, "latent")
    (row,) = json.loads(out)["saes"]
    assert (row["site"], row["seed"], row["folder"]) == ("latent", 0, str(folder))
    assert row["explained variance"] == sae.info.metrics["explained_variance"]
    # it says where it belongs: no site and no model has to be named
    assert steer("features", tmp_path / "in" / "a.wav", "--sae", folder)[0] == 0
    # the same command again finds all done; another training does not touch what is there
    weights = (folder / "sae_weights.safetensors").read_bytes()
    assert steer("train", tmp_path / "in", "-o", tmp_path / "out", *flags)[0] == 0
    code, _, err = steer("train", tmp_path / "in", "-o", tmp_path / "out", *flags[:-1], 5)
    assert code == 2
    assert "another training" in err
    assert (folder / "sae_weights.safetensors").read_bytes() == weights


def test_train_leaves_other_saes_alone(steer: Run, sound: Write, codec_folder: Path, tmp_path: Path) -> None:
    SAE(16, 32).save(tmp_path / "latent")
    code, _, err = steer("train", sound("a.wav"), "-o", tmp_path, "--model", codec_folder)
    assert code == 2
    assert "choose another folder" in err


# --- all layers, several seeds ---


@pytest.fixture(scope="module")
def whisper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper of random weights with two layers and windows of one second."""
    model = pytest.importorskip("whisper.model", reason="extra whisper")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("whisper")
    module = model.Whisper(model.ModelDimensions(80, 50, 16, 2, 2, 51_864, 448, 16, 2, 1))
    state = {key: value for key, value in module.state_dict().items() if key != "encoder.positional_embedding"}
    state["decoder.positional_embedding"] = torch.zeros(448, 16)  # the package leaves it uninitialised
    state["decoder.token_embedding.weight"] = state["decoder.token_embedding.weight"][:1].clone()
    state["vocabulary"] = torch.zeros(0, dtype=torch.int32)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": "whisper_compact", **asdict(module.dims)}))
    return folder


LENGTHS_S = [0.3 + 0.1 * index for index in range(12)]


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("audio")
    rows = [(f"{index}.wav", "train", seconds, "") for index, seconds in enumerate(LENGTHS_S)]
    manifest(root / "talk", [*rows, ("valid.wav", "valid", 0.5, "one"), ("test.wav", "test", 0.5, "two")])
    manifest(root / "room", [("hall.wav", "train", 0.5, "")], "rir")
    return root


@pytest.fixture(scope="module")
def arguments(whisper_folder: Path, audio: Path) -> list[str]:
    options = ("--audio", audio, "--model", whisper_folder, "--layers", "all", "--seeds", "0,3", "--no-downstream")
    return ["train", *map(str, (*options, *SMALL, "--steps", 60))]


@pytest.fixture(scope="module")
def trained(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command leaves where nothing disturbs it."""
    out = tmp_path_factory.mktemp("trained")
    with pytest.raises(SystemExit, match="0"):
        main([*arguments, "--out", str(out)])
    return out


def test_all_layers_and_seeds_in_one_pass(trained: Path, audio: Path) -> None:
    by_seed = {seed: SAE.load_all(trained, seed) for seed in (0, 3)}
    saes = {(site, seed): by_seed[seed][site] for site in ("encoder.0", "encoder.1") for seed in (0, 3)}
    for (site, seed), sae in saes.items():
        assert (sae.info.site, sae.info.frame_rate) == (site, 50.0)
        assert sae.info.extra["training"]["seed"] == seed
    assert not torch.equal(saes["encoder.0", 0].W_enc, saes["encoder.0", 3].W_enc)
    report = json.loads((trained / "metrics.json").read_text())
    rows = report["rows"]
    assert report["title"] == f"SAEs of {saes['encoder.0', 0].info.model}"
    assert [(row["site"], row["seed"]) for row in rows] == list(saes)
    for row, sae in zip(rows, saes.values(), strict=True):
        found = [row[name] for name in ("explained variance", "L0", "dead share", "frames")]
        assert found == [sae.info.metrics[name] for name in ("explained_variance", "l0", "dead_share", "frames")]
    # nothing of the other splits is seen, no room's response, and no frame of padding: windows are one second long
    store = ActivationStore(trained / "activations")
    assert store.sources == sorted(str(audio / "talk" / f"{index}.wav") for index in range(12))
    assert len(store.frames("encoder.1")) == round(50 * sum(LENGTHS_S))


def test_a_seed_is_the_same_alone(steer: Run, arguments: list[str], trained: Path, tmp_path: Path) -> None:
    code, out, _ = steer(*arguments, "--layers", 1, "--seed", 3, "--out", tmp_path)
    assert code == 0
    assert "encoder.1" in out
    weights = [folder / "sae_weights.safetensors" for folder in (tmp_path / "encoder.1", trained / "encoder.1/seed-3")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


# the command itself; it writes more often, and is killed when the n-th file of a module is written, not yet in place
KILLED = """
import os, signal, sys
from contextlib import contextmanager
import torch
from apps.cli import main
from hooks import store_writing
from steer import checkpoints, training

torch.set_num_threads(1)
store_writing.fill.__kwdefaults__["shard_bytes"] = 1
training.train_saes.__kwdefaults__["checkpoint_every"] = 10
module = {"store": store_writing, "checkpoints": checkpoints}[sys.argv[1]]
left, whole_file = int(sys.argv[2]), module.whole_file

@contextmanager
def deadly(path):
    global left
    with whole_file(path) as partial:
        yield partial
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

module.whole_file = deadly
main(sys.argv[3:])
"""


def kill(module: str, writes: int, arguments: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", KILLED, module, str(writes), *arguments]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL


def test_killed_twice_and_resumed_ends_at_the_same_bytes(
    steer: Run, arguments: list[str], trained: Path, tmp_path: Path
) -> None:
    again = [*arguments, "--out", str(tmp_path)]
    kill("store", 5, again)  # a shard for each sound: four are done
    assert len(ActivationStore(tmp_path / "activations").sources) == 4
    kill("checkpoints", 7, again)  # checkpoint, log and curve every ten steps
    assert len(ActivationStore(tmp_path / "activations").sources) == len(LENGTHS_S)
    assert 0 < torch.load(tmp_path / STATE, weights_only=True)["step"] < 60
    assert steer(*again)[0] == 0
    files = sorted(path.relative_to(trained) for path in trained.glob("encoder.*/seed-*/*.safetensors"))
    assert len(files) == 4
    for file in files:
        assert (tmp_path / file).read_bytes() == (trained / file).read_bytes(), file


# --- from a store that is filled ---


def test_a_filled_store_alone_is_trained_on(steer: Run, arguments: list[str], trained: Path, tmp_path: Path) -> None:
    store, flags = trained / "activations", (*SMALL, "--steps", 60)
    model = arguments[arguments.index("--model") + 1]
    code, out, _ = steer("train", "--store", store, "--out", tmp_path / "all", *flags, "--seeds", "0,3", "--json")
    assert code == 0
    files = sorted(path.relative_to(trained) for path in trained.glob("encoder.*/seed-*/*.safetensors"))
    for file in files:
        assert (tmp_path / "all" / file).read_bytes() == (trained / file).read_bytes(), file
    saes = [SAE.load(row["folder"]) for row in json.loads(out)["saes"]]
    assert [(sae.info.model, sae.info.sample_rate, sae.info.frame_rate) for sae in saes] == [(model, 16_000, 50.0)] * 4
    # one of its sites, and its model named again
    flags = ("--site", "encoder.1", "--seed", 3, "--model", model, *flags)
    assert steer("train", "--store", store, "--out", tmp_path / "one", *flags)[0] == 0
    weights = [tmp_path / "one/encoder.1", trained / "encoder.1/seed-3"]
    assert len({(folder / "sae_weights.safetensors").read_bytes() for folder in weights}) == 1
    assert not (tmp_path / "one" / "activations").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--model", "starter:codec"), "not starter:codec; leave --model out"),
        (("--layers", "all"), "--layers: needs sounds and a model"),
        (("--batch", 4), "--batch: needs sounds and a model"),
        (("--site", "encoder.2"), "holds no site 'encoder.2'; it holds encoder.0, encoder.1"),
        (("--store", "nowhere"), "nowhere: no activation store there"),
    ],
)
def test_mistakes_with_a_store_alone(
    steer: Run, trained: Path, tmp_path: Path, flags: tuple[object, ...], message: str
) -> None:
    code, _, err = steer("train", "--store", trained / "activations", "--out", tmp_path / "out", *flags)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not (tmp_path / "out").exists()


def test_sounds_of_equal_length_run_at_once(steer: Run, sound: Write, codec_folder: Path, tmp_path: Path) -> None:
    for number in range(4):
        sound(f"in/{number}.wav", 1.0)
    flags = ("--model", codec_folder, *SMALL, "--steps", 5)
    frames = []
    for batch in (1, 4):
        out = tmp_path / str(batch)
        assert steer("train", tmp_path / "in", "-o", out, *flags, "--batch", batch)[0] == 0
        frames.append(ActivationStore(out / "activations").frames("latent")[:].float())
    torch.testing.assert_close(*frames, rtol=1e-2, atol=1e-2)


# --- several processes ---


def torchrun(arguments: list[str], seconds: float = 300.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "apps.cli"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = [*command, *arguments]
    return subprocess.run(run, env=environment, capture_output=True, text=True, timeout=seconds, check=False)


def test_two_processes_train_what_one_does(arguments: list[str], trained: Path, tmp_path: Path) -> None:
    """The losses differ by the order of float additions; the first process alone captures, saves and tells."""
    ended = torchrun([*arguments, "--out", str(tmp_path), "--json"])
    assert ended.returncode == 0, ended.stderr
    assert len(json.loads(ended.stdout)["saes"]) == 4
    assert ActivationStore(tmp_path / "activations").sources == ActivationStore(trained / "activations").sources
    logs = [(folder / LOG).read_text().splitlines() for folder in (tmp_path, trained)]
    for ours, theirs in zip(*logs, strict=True):
        assert json.loads(ours)["loss"] == pytest.approx(json.loads(theirs)["loss"], rel=1e-4)
    for folder in sorted(trained.glob("encoder.*/seed-*")):
        ours, theirs = SAE.load(tmp_path / folder.relative_to(trained)), SAE.load(folder)
        torch.testing.assert_close(ours.W_dec, theirs.W_dec, rtol=0, atol=1e-3 * float(theirs.W_dec.abs().max()))


def test_a_capture_that_fails_ends_all(whisper_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_text("no sound")
    flags = ("--model", whisper_folder, "--layers", "all", *SMALL, "--steps", 5, "--out", tmp_path / "out")
    ended = torchrun(["train", str(tmp_path / "bad.wav"), *map(str, flags)])
    assert ended.returncode != 0
    told = [line for line in ended.stderr.splitlines() if line.startswith("steer: ")]
    # torchrun may end the second process before it says so
    assert told and all("bad.wav" in line for line in told)
    assert not (tmp_path / "out" / STATE).exists()


# --- what it costs ---


def test_downstream_cost_is_measured_on_valid_clips(
    steer: Run, listener: Transcriber, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("whisper", reason="extra whisper")
    pytest.importorskip("jiwer", reason="extra whisper")
    monkeypatch.setattr(hooks, "open_model", lambda name, device: listener)
    texts = [("train", "hello"), ("valid", "hello"), ("valid", "hello you"), ("test", "never heard")]
    manifest(tmp_path / "in" / "talk", [(f"{i}.wav", split, 0.5, text) for i, (split, text) in enumerate(texts)])
    flags = ("--model", "listener", "--site", "ear.0,ear.1", *SMALL, "--steps", 5, "--json")
    code, out, _ = steer("train", "--audio", tmp_path / "in", *flags, "--out", tmp_path / "out")
    assert code == 0
    report = json.loads((tmp_path / "out" / "downstream.json").read_text())
    assert json.loads(out)["downstream"] == report
    assert [row["site"] for row in report["rows"]] == ["as it is", "ear.0", "ear.1"]
    assert report["rows"][0]["errors"] == "1 of 3 words"
    # before anything is run: no clips that could tell
    (tmp_path / "in" / "talk" / "1.wav").rename(tmp_path / "in" / "talk" / "gone.wav")
    code, _, err = steer("train", "--audio", tmp_path / "in", *flags, "--out", tmp_path / "other")
    assert (code, err.count("\n")) == (2, 1)
    assert "names 1.wav, which is not there" in err
    assert not (tmp_path / "other").exists()


# --- mistakes ---


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--layers", "0,2"), "has no layer '2'; its layers are 0 to 1"),
        (("--layers", "first"), "has no layer 'first'"),
        (("--layers", "1,1"), "site 'encoder.1' is given twice"),
        (("--layers", "all", "--site", "encoder.0"), "site 'encoder.0' is given twice"),
        (("--site", "encoder.7"), "has no site 'encoder.7'"),
        (("--layers", "all", "--seeds", "0,x"), "--seeds: '0,x' is not a list"),
        (("--layers", "all", "--seeds", "1,1"), "--seeds: '1,1' is not a list of different"),
        (("--layers", "all", "more.wav"), "either files, folders and globs, or --audio"),
    ],
)
def test_mistakes_are_one_line(
    steer: Run, whisper_folder: Path, audio: Path, tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    code, _, err = steer("train", "--audio", audio, "--model", whisper_folder, "--out", tmp_path / "out", *flags)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not (tmp_path / "out").exists()


def test_a_codec_has_no_encoder_layers(steer: Run, sound: Write, codec_folder: Path, tmp_path: Path) -> None:
    code, _, err = steer("train", sound("a.wav"), "--model", codec_folder, "--layers", "all", "-o", tmp_path / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert "has no encoder layers" in err


def test_trainings_as_others_do_them(steer: Run, sound: Write, codec_folder: Path, tmp_path: Path) -> None:
    sound("in/a.wav", 2.0)
    flags = ("--no-latent-bias", "--no-decoder-bias", "--no-unit-norm", "--no-auxiliary", "--no-rescale", "--rms-norm")
    numbers = ("--eps", "6.25e-10", "--schedule", "constant", "--patience", 20, "--steps", 40)
    arguments = ("train", tmp_path / "in", "-o", tmp_path / "out", "--model", codec_folder, *SMALL)
    code, _, err = steer(*arguments, *flags, *numbers, "--json")
    assert code == 0, err
    sae = SAE.load(tmp_path / "out" / "latent")
    assert (sae.latent_bias, sae.decoder_bias, sae.rms_norm) == (False, False, True)
    wanted = {"unit_norm": False, "auxiliary": False, "rescale": False, "schedule": "constant", "patience": 20}
    assert wanted.items() <= sae.info.extra["training"].items()
    assert sae.info.extra["training"]["eps"] == 6.25e-10
    code, _, err = steer(*arguments, "--schedule", "cosine")
    assert (code, err.count("\n")) == (2, 1)
    assert "unknown schedule 'cosine'" in err

"""`steer evaluate all` and `stability`, with the recogniser of which all is known (`listener`), and with a HuBERT.

The listener writes "hello" unless axis 1, how far a sound is below zero, is above 0.8 on average.
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
from evaluation import frame
from hooks import Transcriber
from steer.sae import SAE, SAEInfo

Run = Callable[..., tuple[int, str, str]]

pytest.importorskip("whisper", reason="extra whisper")
pytest.importorskip("jiwer", reason="extra whisper")
pytest.importorskip("sklearn", reason="extra eval")
pytest.importorskip("matplotlib", reason="extra eval")


@pytest.fixture
def run(steer: Run, monkeypatch: pytest.MonkeyPatch, listener: Transcriber) -> Run:
    opened = hooks.open_model

    def open_model(name: str, device: str = "cpu") -> object:
        return listener if name == "listener" else opened(name)

    monkeypatch.setattr(hooks, "open_model", open_model)
    for module in ("steer.recipe", "evaluation.evaluators.stability"):
        monkeypatch.setattr(f"{module}.open_model", open_model)
    return steer


def lossless(width: int, folder: Path, model: str, site: str, seed: int = 0) -> Path:
    """A feature for either sign of each axis, in an order of the seed's own."""
    order = torch.randperm(2 * width, generator=torch.Generator().manual_seed(seed))
    sae = SAE(width, 2 * width, "relu", info=SAEInfo(model=model, site=site))
    with torch.no_grad():
        sae.W_dec.copy_(torch.cat([torch.eye(width), -torch.eye(width)])[order])
        sae.W_enc.copy_(sae.W_dec.T)
    return sae.save(folder)


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    """Of the listener, as steer train --seeds leaves them."""
    for site in ("ear.0", "ear.1"):
        for seed in (0, 1):
            lossless(4, tmp_path / "seeds" / site / f"seed-{seed}", "listener", site, seed)
    return tmp_path / "seeds"


def recordings_in(folder: Path, subset: str, clips: dict[str, tuple[float, str]], seconds: float = 0.2) -> None:
    """{label: (level, text)}: two clips of each label in each split, each a little louder than the last."""
    rows = [["path", "split", "text", "label", "speaker"]]
    for split in ("train", "valid", "test"):
        for label, (level, text) in clips.items():
            for index in range(4):
                name = f"{split}-{label}-{index}.wav"
                (folder / subset).mkdir(parents=True, exist_ok=True)
                noise = 0.001 * np.random.default_rng(len(rows)).standard_normal(round(16_000 * seconds))
                soundfile.write(folder / subset / name, level * (1 + index / 100) + noise, 16_000)
                rows.append([name, split, text, label, "ab"[index % 2]])
    with (folder / subset / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Noises are below zero, speech is above."""
    recordings_in(tmp_path / "audio", "esc10", {"rain": (-0.5, ""), "wind": (-0.3, "")})
    recordings_in(tmp_path / "audio", "digits", {"1": (0.5, "hello"), "2": (0.3, "hello")})
    return tmp_path / "audio"


def test_all_of_a_recogniser(run: Run, tmp_path: Path, audio: Path, seeds: Path) -> None:
    out = tmp_path / "out"
    command = ("evaluate", "all", "--model", "listener", "--audio", audio, "-o", out, "--points", 3)
    code, shown, err = run(*command, "--saes", seeds, "--concepts", "sound,digit")
    assert (code, err) == (0, "")
    names = ["false-alarms", "ablation-sound-ear.0", "ablation-digit-ear.0", "stability", "downstream", "summary"]
    assert {path.name for path in out.iterdir()} == {
        *(f"{name}.{kind}" for name in names for kind in ("json", "md", "png")),
        "false-alarms.yaml",
    }
    assert all((out / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in names)
    about, rows = (json.loads((out / "summary.json").read_text())[key] for key in ("about", "rows"))
    assert (about["model"], about["failed"]) == ("listener", {})
    assert list(about["left out"]) == [
        "acoustics", "residuals", "reconstruction", "vectors", "gates", "sparse-probing", "layers", "factors",
        "codec-index", "sae-grid", "brain",
    ]  # fmt: skip
    found = {row["number"]: row for row in rows}
    assert found["clips without speech in which words are written"]["result"]["value"] == 0
    assert found["clips without speech in which words are written"]["beside it"] == "unedited 100 % [63.1, 100]"
    assert found["of these gone"]["result"]["value"] == 1
    assert "activation steering 100 %" in found["of these gone"]["beside it"]
    assert found["WER change in points"]["result"]["value"] == 0
    assert found["features needed, sound=rain"]["result"]["value"] <= 1
    assert found["WER through the SAE at ear.1"]["result"]["value"] == 0
    matched = [row for name, row in found.items() if name.startswith("features matched at ear.0")]
    assert [row["result"]["value"] for row in matched] == [1, 1, 1]
    table = (out / "summary.md").read_text()
    assert "| of these gone | 100 % [63.1, 100] |" in table
    assert "summary" not in shown and "main numbers" in shown
    # what is measured is in the recipe
    assert run("transcribe", audio / "esc10" / "test-rain-0.wav", "--recipe", out / "false-alarms.yaml")[1] == "\n"

    # the same again: nothing is measured, the summary is the same
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("*.json")}
    code, shown, _ = run(*command, "--saes", seeds, "--concepts", "sound,digit")
    assert code == 0
    assert shown.count("measured already, with the same settings") == 5
    again = {path.name: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert {name for name in written if written[name] != again[name]} == {"summary.json"}
    assert (out / "summary.md").read_text() == table

    # other SAEs or options: what depends on them is
    lossless(4, seeds / "ear.1" / "seed-1", "listener", "ear.1", seed=7)
    (out / "downstream.json").write_text("{")  # damaged
    _, shown, _ = run(*command[:-1], 4, "--saes", seeds, "--concepts", "sound")
    assert [line.split(":")[0] for line in shown.splitlines() if "measured already" in line] == ["false-alarms"]
    summary = (out / "summary.md").read_text()
    assert "digit" not in summary and "sound=rain" in summary


def test_a_part_that_fails_does_not_stop_the_rest(
    run: Run, tmp_path: Path, audio: Path, seeds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    sae = ("--sae", seeds / "ear.0" / "seed-0")
    command = ("evaluate", "all", "--model", "listener", "--audio", audio, "-o", out, *sae, "--concepts", "keyword")
    code, shown, err = run(*command)
    assert code == 1
    assert err.splitlines() == [
        f"ablation-keyword-ear.0: {audio}: no clips of split 'train' for 'keyword'; they would be in keywords"
    ]
    assert "stability: left out; it takes SAEs of several seeds" in shown
    assert {path.stem for path in out.glob("*.json")} == {"false-alarms", "downstream", "summary"}
    assert list(json.loads((out / "summary.json").read_text())["about"]["failed"]) == ["ablation-keyword-ear.0"]
    assert run(*command)[1].count("measured already") == 2
    assert "measured already" not in run(*command, "--fresh")[1]
    # what evaluators of before have measured is measured again
    monkeypatch.setattr(frame, "digest_of_code", lambda module: "another")
    assert "measured already" not in run(*command)[1]


def test_where_nothing_can_be_measured_nothing_is_left(run: Run, tmp_path: Path, seeds: Path) -> None:
    recordings_in(tmp_path / "audio", "esc10", {"rain": (-0.5, "")})
    sae = ("--sae", seeds / "ear.0" / "seed-0")
    code, _, err = run(
        "evaluate", "all", "--model", "listener", "--audio", tmp_path / "audio", "-o", tmp_path / "a" / "out", *sae,
        "--concepts", "sound",
    )  # fmt: skip
    assert code == 1
    false_alarms, removal, downstream = err.splitlines()
    assert "split 'train' has no clips with speech and its text" in false_alarms
    assert "sound=rain: 0 clips without it to train on" in removal
    assert "have a text" in downstream
    assert not (tmp_path / "a").exists()


def test_all_of_an_encoder(steer: Run, tmp_path: Path, audio: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="extra ssl")
    torch.manual_seed(0)
    config = transformers.HubertConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, conv_dim=(8, 8),
        conv_stride=(20, 16), conv_kernel=(20, 16), num_feat_extract_layers=2, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    transformers.HubertModel(config).save_pretrained(tmp_path / "hubert")
    sources = []
    for layer in range(3):
        name = f"encoder.{layer}"
        sources += ["--sae", lossless(16, tmp_path / "saes" / name, str(tmp_path / "hubert"), name)]
    out = tmp_path / "out"
    # 0.2 s are 10 frames: enough
    flags = ("--model", tmp_path / "hubert", "--audio", audio, "-o", out, "--points", 2, "--concepts", "sound")
    code, shown, _ = steer("evaluate", "all", *flags, *sources, "--sites", "all")
    assert code == 0
    assert "false-alarms: left out;" in shown and "writes no words" in shown
    # there is nothing to read at behind the last layer
    assert {path.stem for path in out.glob("*.json")} == {
        "ablation-sound-encoder.0", "ablation-sound-encoder.1", "downstream", "summary"
    }  # fmt: skip
    rows = {row["number"]: row for row in json.loads((out / "summary.json").read_text())["rows"]}
    kept = rows["accuracy through the SAE at encoder.2"]
    assert kept["result"]["value"] == pytest.approx(float(kept["beside it"].split()[1]) / 100, abs=0.01)


# --- stability by itself ---


def test_stability(run: Run, tmp_path: Path, audio: Path, seeds: Path) -> None:
    out = tmp_path / "out"
    code, shown, err = run("evaluate", "stability", "--audio", audio, "-o", out, "--saes", seeds)
    assert (code, err) == (0, "")
    report = json.loads((out / "stability.json").read_text())
    assert [row["site"] for row in report["rows"]] == ["ear.0"] * 3 + ["ear.1"] * 3
    assert {row["matched"]["value"] for row in report["rows"]} == {1}
    assert report["about"]["model"] == "listener"
    assert "100 % [100, 100]" in (out / "stability.md").read_text()
    assert (out / "stability.png").read_bytes().startswith(b"\x89PNG")
    assert "other seeds have too" in shown


# --- mistakes ---


def test_mistakes_are_one_line(run: Run, tmp_path: Path, audio: Path, seeds: Path) -> None:
    out = tmp_path / "deep" / "out"

    def failing(command: str, *arguments: object, model: object = "listener", audio: Path = audio) -> str:
        code, _, err = run("evaluate", command, "--audio", audio, "-o", out, "--model", model, *arguments)
        assert code == 2
        assert err.startswith("steer: ") and err.count("\n") == 1
        assert not (tmp_path / "deep").exists()
        return err

    # recordings
    (tmp_path / "empty").mkdir()
    assert "no manifest.csv there, and no folders with a manifest.csv" in failing(
        "all", "--saes", seeds, audio=tmp_path / "empty"
    )
    assert "no clips of split 'dev'" in failing("stability", "--saes", seeds, "--split", "dev")
    one = ("--sae", seeds / "ear.0" / "seed-0")
    recordings_in(tmp_path / "talk", "digits", {"1": (0.5, "hello")})
    assert "split 'train' has no clips without speech" in failing("false-alarms", *one, audio=tmp_path / "talk")
    recordings_in(tmp_path / "gone", "esc10", {"rain": (-0.5, ""), "wind": (-0.3, "")})
    for split in ("train", "test"):
        (tmp_path / "gone" / "esc10" / f"{split}-rain-0.wav").unlink()
    for command, flags in (("ablation", one), ("false-alarms", one), ("stability", ("--saes", seeds))):
        split = "test" if command == "stability" else "train"
        missing = f"esc10/manifest.csv: names {split}-rain-0.wav, which is not there"
        assert missing in failing(command, *flags, audio=tmp_path / "gone")
    # SAEs
    assert "--sites: there is no SAE at 'ear.7'; there are SAEs at ear.0" in failing(
        "all", "--saes", seeds, "--sites", "ear.7"
    )
    assert "no SAEs there; they would be in SITE/seed-N/" in failing("all", "--saes", audio)
    assert "no SAEs of several seeds there" in failing("stability", "--saes", audio)
    lossless(4, tmp_path / "far" / "ear.7" / "seed-0", "listener", "ear.7")
    lossless(4, tmp_path / "far" / "ear.7" / "seed-1", "listener", "ear.7")
    assert "listener has no site 'ear.7'; did you mean ear." in failing("stability", "--saes", tmp_path / "far")
    assert "listener has no site 'ear.7'; did you mean ear." in failing("all", "--saes", tmp_path / "far")
    assert "listener has no site 'ear.7'; did you mean ear." in failing(
        "false-alarms", "--sae", tmp_path / "far" / "ear.7" / "seed-0"
    )
    for seed in (0, 1):
        lossless(8, tmp_path / "wide" / "ear.0" / f"seed-{seed}", "other", "ear.0")
    wide = "8 wide, but site 'ear.0' of listener is 4 wide"
    assert wide in failing("stability", "--saes", tmp_path / "wide")
    assert wide in failing("all", "--saes", tmp_path / "wide")
    lossless(4, tmp_path / "one" / "ear.0" / "seed-0", "listener", "ear.0")
    alone = "ear.0: stability compares SAEs of several seeds, there is 1"
    assert alone in failing("stability", "--saes", tmp_path / "one")
    assert alone in failing("all", "--saes", tmp_path / "one")
    # models
    assert "no model 'none:such'" in failing("all", "--saes", seeds, model="none:such")


def test_saes_of_another_model_are_one_line_each(run: Run, tmp_path: Path, audio: Path) -> None:
    """They fit the site, and explain nothing there."""
    for seed in (0, 1):
        folder = tmp_path / "foreign" / "ear.0" / f"seed-{seed}"
        sae = SAE.load(lossless(4, folder, "whisper:small", "ear.0"))
        sae.W_dec.data *= -1
        sae.save(folder)
    told = "it belongs to another model or site (it says whisper:small, ear.0)"
    flags = ("--model", "listener", "--audio", audio, "--saes", tmp_path / "foreign")
    code, _, err = run("evaluate", "stability", *flags, "-o", tmp_path / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert told in err
    assert not (tmp_path / "out").exists()
    one = (*flags[:-2], "--sae", tmp_path / "foreign" / "ear.0" / "seed-0")
    code, _, err = run("evaluate", "false-alarms", *one, "-o", tmp_path / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert told in err
    assert not (tmp_path / "out").exists()
    code, _, err = run("evaluate", "all", *flags, "-o", tmp_path / "out", "--concepts", "sound")
    assert code == 1
    assert [line.split(":")[0] for line in err.splitlines()] == ["false-alarms", "ablation-sound-ear.0", "stability"]
    assert all(told in line for line in err.splitlines())


def test_all_layers_are_one_table(run: Run, audio: Path, seeds: Path, tmp_path: Path) -> None:
    """SAEs of a folder at several sites: a row a site, whichever protocol; each clip is passed once for all of them."""
    flags = ("--audio", audio, "--sae", seeds, "--concepts", "sound,digit", "--points", 2, "--draws", 1)
    out = tmp_path / "features"
    code, shown, err = run("evaluate", "ablation", *flags, "--read", "features", "-o", out)
    assert (code, err) == (0, "")
    report = json.loads((out / "ablation.json").read_text())
    sites = ["ear.0", "ear.1"]
    assert list(dict.fromkeys(row["site"] for row in report["rows"])) == sites
    assert list(report["about"]["sites"]) == sites
    assert report["about"]["ranked by"] == "fisher" and report["about"]["pooling"] == "max"
    concepts = [row["concept"] for row in report["rows"] if row["site"] == "ear.1"]
    assert [name.partition("=")[0] for name in concepts[:2]] == ["sound", "digit"]
    assert concepts[-1].startswith("mean of ")
    table = [line.split() for line in shown.splitlines() if "ear." in line]
    assert len(table) >= 2 * len(sites)  # needed, and in random order
    assert (out / "ablation.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "features.safetensors").exists()
    # one site of the folder
    code, _, err = run("evaluate", "ablation", *flags, "--read", "features", "--site", "ear.1", "-o", tmp_path / "one")
    assert (code, err) == (0, "")
    assert "site" not in json.loads((tmp_path / "one" / "ablation.json").read_text())["rows"][0]
    code, _, err = run("evaluate", "ablation", *flags, "--site", "ear.7", "-o", tmp_path / "none")
    assert code == 2 and "holds SAEs for ear.0, ear.1, none for site 'ear.7'" in err

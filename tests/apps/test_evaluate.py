"""`steer evaluate ablation`; `false-alarms` is in `test_transcribe`, `all` and `stability` in `test_evaluate_all`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from steer.sae import SAE, SAEInfo

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def mirror_sae(codec_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SAE that loses nothing: a feature for either sign of each of the latent's 16 axes."""
    folder = tmp_path_factory.mktemp("mirror")
    sae = SAE(16, 32, "relu", info=SAEInfo(model=str(codec_folder), site="latent"))
    with torch.no_grad():
        sae.W_dec.copy_(torch.cat([torch.eye(16), -torch.eye(16)]))
        sae.W_enc.copy_(sae.W_dec.T)
    sae.save(folder)
    return folder


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Loud and soft tones, each a little noisy in its own way."""
    lines, rng = ["path,label"], np.random.default_rng(0)
    tone = np.sin(2 * np.pi * 300 * np.arange(4800) / 24_000)
    for index in range(16):
        level = (0.02, 0.3)[index % 2]
        soundfile.write(tmp_path / f"{index}.wav", level * (tone + 0.01 * rng.standard_normal(4800)), 24_000)
        lines.append(f"{index}.wav,{('soft', 'loud')[index % 2]}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    return tmp_path / "list.csv"


def test_ablation_of_a_csv(steer: Run, labels: Path, mirror_sae: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="extra eval")
    pytest.importorskip("matplotlib", reason="extra eval")
    out = tmp_path / "out"
    flags = ["--sae", mirror_sae, "--later", "decoder_input", "--points", 3, "--draws", 1]
    flags += ["--rank", "fisher", "--mode", "delta"]
    code, shown, err = steer("evaluate", "ablation", "--labels", f"{labels}:label", "-o", out, *flags)
    assert (code, err) == (0, "")
    report = json.loads((out / "ablation.json").read_text())
    (row,) = report["rows"]
    assert row["concept"] == "label=soft"
    assert row["probe"]["value"] > row["chance"]  # the fixture's latent follows the level
    assert report["about"]["site"] == "latent" and report["about"]["read at"] == "decoder_input"
    assert (report["about"]["ranked by"], report["about"]["mode"]) == ("fisher", "delta")
    assert report["about"]["explained variance"] == pytest.approx(1, abs=1e-5)
    assert "label=soft" in (out / "ablation.md").read_text()
    assert (out / "ablation.png").read_bytes().startswith(b"\x89PNG")
    assert "ablated" in shown


def test_ablation_errors_are_one_line(steer: Run, labels: Path, mirror_sae: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="extra eval")
    pytest.importorskip("matplotlib", reason="extra eval")

    def failing(*arguments: object) -> str:
        code, _, err = steer("evaluate", "ablation", "-o", tmp_path / "deep" / "out", *arguments)
        assert code == 2
        assert err.startswith("steer: ") and err.count("\n") == 1
        assert not (tmp_path / "deep").exists()
        return err

    def listed(*lines: str) -> Path:
        path = tmp_path / "other.csv"
        path.write_text("\n".join(["path,label,split", *lines]))
        return path

    assert "either --audio FOLDER or --labels" in failing()
    assert "there are no concepts of kind 'colour'" in failing("--audio", tmp_path, "--concepts", "colour=red")
    assert "no concepts of kind 'who'" in failing("--labels", f"{labels}:who")
    mirror = ("--labels", labels, "--sae", mirror_sae)
    assert "decoder_input" in failing(*mirror)  # no site in the encoder is later
    assert "no concept 'label=medium'" in failing(*mirror, "--concepts", "label=medium")
    # a clip that is not there
    assert "other.csv: names gone.wav, which is not there" in failing(
        "--labels", listed("0.wav,soft,train", "gone.wav,loud,train"), "--sae", mirror_sae
    )
    # a class with one example
    few = [f"{index}.wav,{('soft', 'loud')[index % 2]},{('train', 'test')[index // 8]}" for index in range(1, 16)]
    rare = listed("0.wav,rare,train", *few)
    later = ("--sae", mirror_sae, "--later", "decoder_input")
    assert "concept label=rare: 1 clip with it to train on, and it takes 2" in failing("--labels", rare, *later)
    # sites that are not there
    assert "has no site 'latent.9'" in failing(*mirror, "--site", "latent.9")
    assert "has no site 'decoder.99'" in failing(*mirror, "--later", "decoder.99")


def test_an_sae_of_another_model_is_one_line(
    steer: Run, labels: Path, codec_folder: Path, mirror_sae: Path, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn", reason="extra eval")
    pytest.importorskip("matplotlib", reason="extra eval")
    foreign = SAE.load(mirror_sae)
    foreign.info = SAEInfo(model="encodec:24khz", site="latent")
    with torch.no_grad():
        foreign.W_dec *= -1
    for sae, told in (
        (foreign, "it belongs to another model or site (it says encodec:24khz, latent)"),
        (SAE(128, 8, "relu", info=foreign.info), "the SAE is for activations 128 wide, but site 'latent' of"),
    ):
        flags = ("--sae", sae.save(tmp_path / "sae"), "--model", codec_folder, "--later", "decoder_input")
        code, _, err = steer("evaluate", "ablation", "--labels", labels, "-o", tmp_path / "out", *flags)
        assert (code, err.count("\n")) == (2, 1)
        assert told in err
        assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_stays(steer: Run, labels: Path, mirror_sae: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="extra eval")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    flags = ("--labels", labels, "--sae", mirror_sae, "--site", "latent.9")
    assert steer("evaluate", "ablation", "-o", tmp_path / "out", *flags)[0] == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    (tmp_path / "out" / "mine.txt").unlink()
    assert steer("evaluate", "ablation", "-o", tmp_path / "out", *flags)[0] == 2
    assert (tmp_path / "out").is_dir()  # it was there before

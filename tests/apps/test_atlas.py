"""`steer features --atlas`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation.atlas import Atlas
from steer import SAE, SAEInfo

Run = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]


@pytest.fixture
def audio(sound: Write, tmp_path: Path) -> Path:
    """Short sounds and long ones."""
    lines = ["path,split,label"]
    for index in range(6):
        sound(f"in/tones/{index}.wav", 0.3 if index % 2 else 1.0)
        lines.append(f"{index}.wav,test,{'short' if index % 2 else 'long'}")
    (tmp_path / "in" / "tones" / "manifest.csv").write_text("\n".join(lines))
    return tmp_path / "in"


def test_build_and_read(steer: Run, audio: Path, sound: Write, sae_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.atlas"
    code, out, err = steer("features", "--atlas", path, "--audio", audio, "--sae", sae_folder, "--json")
    assert code == 0, err
    built = json.loads(out)
    assert [row["label"] for row in built["rows"]] == ["subset:tones", "label:long", "label:short"]
    assert built["about"]["split"] == "test"
    atlas = Atlas.load(path)
    assert (atlas.d_sae, atlas.site, atlas.sae) == (48, "latent", str(sae_folder))
    assert atlas.silent == built["silent"]
    assert atlas.clips == [f"tones/{index}.wav" for index in range(6)]

    code, out, _ = steer("features", "--atlas", path, "--top", 3, "--json")
    assert code == 0
    listed = json.loads(out)
    assert [one["feature"] for one in listed] == [one.feature for one in atlas.clearest(3)]
    assert listed[0]["peaks"][0]["clip"].startswith("tones/")
    code, out, _ = steer("features", "--atlas", path, "--label", "short", "--top", 1, "--json")
    assert code == 0
    assert json.loads(out)[0]["labels"][0]["label"] == "label:short"
    code, out, _ = steer("features", "--atlas", path, "--feature", 5)
    assert code == 0
    assert "48 features" in " ".join(out.split())

    # beside a sound's own features, what the atlas knows of them
    code, out, _ = steer("features", sound("new.wav"), "--sae", sae_folder, "--atlas", path, "--json", "--top", 2)
    assert code == 0
    first = json.loads(out)[0]["features"][0]
    assert first["label"] == atlas.feature(first["feature"]).labels[0].label
    assert "label (AUROC)" in steer("features", tmp_path / "new.wav", "--sae", sae_folder, "--atlas", path)[1]

    for arguments, message in (
        (("--audio", audio), "exists already"),
        (("--label", "loud"), "has no label 'loud'; it has subset:tones, label:long"),
        (("--label", "tones"), "too few clips"),
        (("--feature", 48), "no feature 48"),
        (("--out", tmp_path / "f"), "--out saves the features of sounds"),
    ):
        code, _, err = steer("features", "--sae", sae_folder, "--atlas", path, *arguments)
        assert code == 2
        assert message in err
        assert err.count("\n") == 1


def test_one_that_ships(steer: Run) -> None:
    code, out, err = steer("features", "--atlas", "starter:codec/latent", "--feature", 17, "--json")
    assert code == 0, err
    assert json.loads(out)[0]["feature"] == 17
    code, _, err = steer("features", "--atlas", "starter:codec/nothing")
    assert code == 2
    assert "no starter SAE" in err


def test_a_folder_without_labels(steer: Run, sound: Write, sae_folder: Path, tmp_path: Path) -> None:
    sound("in/deep/a.wav", 0.3), sound("in/b.wav", 0.3)
    path = tmp_path / "bare.atlas"
    code, out, _ = steer("features", "--atlas", path, "--audio", tmp_path / "in", "--sae", sae_folder)
    assert code == 0
    assert "no labels" in out
    assert Atlas.load(path).clips == ["b.wav", "deep/a.wav"]
    assert steer("features", "--atlas", path, "--top", 2)[0] == 0


def test_one_subset_alone(steer: Run, audio: Path, sae_folder: Path, tmp_path: Path) -> None:
    flags = ("--audio", audio / "tones", "--sae", sae_folder)
    assert steer("features", "--atlas", tmp_path / "one.atlas", *flags, "--clips", 3)[0] == 0
    atlas = Atlas.load(tmp_path / "one.atlas")
    assert atlas.clips == [f"tones/{index}.wav" for index in (0, 2, 5)]
    assert atlas.about["clips of a subset at most"] == 3
    code, _, err = steer("features", "--atlas", tmp_path / "two.atlas", *flags, "--split", "valid")
    assert code == 2
    assert "no clips of split 'valid'" in err
    assert not (tmp_path / "two.atlas").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--audio", "."), "pass --atlas FILE to write it to"),
        (("a.wav", "--atlas", "x", "--audio", "."), "no other sounds"),
        (("--label", "dog"), "pass --atlas FILE"),
        (("a.wav", "--atlas", "x", "--feature", 3), "and no sounds"),
        (("--atlas", "none.atlas"), "no such atlas; make one with"),
        (("a.wav", "--atlas", "none.atlas"), "no such atlas; make one with"),
        ((), "no sound files were given"),
    ],
)
def test_mistakes(steer: Run, arguments: tuple[object, ...], message: str) -> None:
    code, _, err = steer("features", *arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_all_sites_in_one_pass(steer: Run, audio: Path, codec_folder: Path, tmp_path: Path) -> None:
    for site in ("latent", "decoder_input"):
        SAE(16, 32, "relu", info=SAEInfo(model=str(codec_folder), site=site)).save(tmp_path / "saes" / site)
    flags = ("--audio", audio, "--sae", tmp_path / "saes")
    code, _, err = steer("features", "--atlas", tmp_path / "all.atlas", *flags)
    assert code == 2 and "an atlas is of one SAE, there are some at decoder_input, latent" in err
    code, out, err = steer("features", "--atlas", tmp_path / "all", *flags)
    assert code == 0, err
    assert "label:long" in out and out.count("latent") == out.count("decoder_input") == 1
    for site in ("latent", "decoder_input"):
        atlas = Atlas.load(tmp_path / "all" / f"{site}.safetensors")
        assert (atlas.site, atlas.sae) == (site, str(tmp_path / "saes" / site))
    code, out, _ = steer("features", "--atlas", tmp_path / "all", *flags, "--json", "--force")
    assert code == 0
    told = json.loads(out)
    assert told["silent"].keys() == {"latent", "decoder_input"}
    assert {row["site"] for row in told["rows"]} == {"latent", "decoder_input"}

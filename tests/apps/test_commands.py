"""`steer features`, `probe`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from apps.commands.probe import OTHERS, held_out, split
from steer.probes import load_probes

Write = Callable[..., Path]


Run = Callable[..., tuple[int, str, str]]


def test_features(steer: Run, sound: Write, codec_folder: Path, sae_folder: Path, tmp_path: Path) -> None:
    path = sound("a.wav", 1.0)
    code, out, _ = steer(
        "features", path, "--sae", sae_folder, "--top", 5, "--json", "--out", tmp_path / "f.safetensors"
    )
    assert code == 0
    (entry,) = json.loads(out)
    (f_TF,) = load_file(tmp_path / "f.safetensors").values()
    assert f_TF.shape == (75, 48)
    first = entry["features"][0]
    assert first["feature"] == int(f_TF.mean(0).argmax())
    assert first["mean"] == pytest.approx(float(f_TF.mean(0).max()), rel=1e-5)
    assert first["peak_s"] == pytest.approx((int(f_TF[:, first["feature"]].argmax()) + 0.5) / 75)
    code, out, _ = steer("features", path, "--sae", sae_folder)
    assert code == 0
    assert str(first["feature"]) in out
    code, _, err = steer("features", tmp_path / "none.wav", "--sae", sae_folder)
    assert code == 2
    assert "no such file" in err


def test_probe_loudness_and_brightness(steer: Run, sound: Write, sae_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="probes are fitted by scikit-learn")
    for index in range(3):
        sound(f"in/{index}.wav", 2.0)
    target = tmp_path / "p.safetensors"
    code, out, _ = steer(
        "probe", tmp_path / "in", "--sae", sae_folder, "-o", target, "--attributes", "loudness,brightness", "--json"
    )
    assert code == 0
    report = json.loads(out)
    probes = load_probes(target)
    assert set(probes) == {"loudness", "brightness"}
    assert all(probe.weights.shape == (20, 48) and probe.site == "latent" for probe in probes.values())
    # the sounds swell: a codec's latent knows how loud they are
    assert report["loudness"]["accuracy"] > report["loudness"]["chance"]
    assert "exists already" in steer("probe", tmp_path / "in", "--sae", sae_folder, "-o", target)[2]


def test_probe_of_labels(steer: Run, sound: Write, sae_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="probes are fitted by scikit-learn")
    rows = [{"path": sound(f"{index}.wav", 0.5 + 0.2 * index).name, "who": "ab"[index % 2]} for index in range(4)]
    with (tmp_path / "list.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "who"])
        writer.writeheader()
        writer.writerows(rows)
    target = tmp_path / "p.safetensors"
    code, _, _ = steer("probe", "--labels", f"{tmp_path / 'list.csv'}:who", "--sae", sae_folder, "-o", target)
    assert code == 0
    assert load_probes(target)["who"].bins.names == ("a", "b")
    code, _, err = steer(
        "probe", "--labels", f"{tmp_path / 'list.csv'}:whom", "--sae", sae_folder, "-o", tmp_path / "q"
    )
    assert code == 2
    assert "needs rows with the columns path and whom" in err


@pytest.mark.parametrize("count", [1, 4, 5, 11])
def test_a_probe_is_tested_on_other_sounds_or_says_that_it_is_not(count: int) -> None:
    sounds = [(torch.full((10, 3), float(i)), {"loudness": torch.full((10,), float(i))}) for i in range(count)]
    trained, tested = (set(values["loudness"].tolist()) for _, values in split(sounds, 1_000))
    assert (len(trained & tested) > 0) == (count < 5)
    assert (held_out(count) == OTHERS) == (count >= 5)
    assert trained | tested == set(range(count))


@pytest.mark.parametrize(("count", "expected"), [(4, "the same sounds"), (5, "other sounds")])
def test_what_a_probe_was_tested_on_is_told(
    steer: Run, sound: Write, sae_folder: Path, tmp_path: Path, count: int, expected: str
) -> None:
    pytest.importorskip("sklearn", reason="probes are fitted by scikit-learn")
    for number in range(count):
        sound(f"in/{number}.wav", 1.0)
    given = ("probe", tmp_path / "in", "--sae", sae_folder, "--attributes", "loudness")
    assert expected in json.loads(steer(*given, "-o", tmp_path / "a", "--json")[1])["tested_on"]
    assert f"tested on {expected}" in steer(*given, "-o", tmp_path / "b")[1]
    assert "fewer than five" in " ".join(steer("probe", "--help")[1].split())


def test_probe_needs_something_to_read(steer: Run, sae_folder: Path, tmp_path: Path) -> None:
    code, _, err = steer("probe", "--sae", sae_folder, "-o", tmp_path / "p", "--attributes", "colour")
    assert code == 2
    assert "colour is not one of" in err
    code, _, err = steer("probe", "--sae", sae_folder, "-o", tmp_path / "p")
    assert code == 2
    assert "no sound files" in err
    code, _, err = steer("probe", "--model", "starter:ssl", "-o", tmp_path / "p", Path(__file__))
    assert code == 2
    assert "starter:ssl has SAEs at encoder.0, encoder.1, encoder.2, encoder.3: choose one with --site" in err


def test_evaluate_is_wired(steer: Run) -> None:
    code, out, _ = steer("evaluate", "acoustics", "--help")
    assert code == 0
    assert "--audio" in out

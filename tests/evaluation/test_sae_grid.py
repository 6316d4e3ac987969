"""SAE size x penalty on frames that are sparse sums of known atoms, one of which says the value of an attribute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from evaluation.config import EvaluationError
from evaluation.sae_grid import (
    DENSE,
    MAJORITY,
    PILOT,
    RANDOM,
    SAE_ROW,
    Grid,
    Reading,
    Readings,
    Training,
    best_of,
    classes_of,
    evaluate,
    fewer,
    spread,
)
from evaluation.site_frames import LabelledFrames
from steer.probes import load_probes
from steer.sae import SAE

pytest.importorskip("sklearn", reason="extra eval")

Run = Callable[..., tuple[int, str, str]]

WIDTH, ATOMS, ACTIVE, CLASSES, SIZE = 32, 50, 3, 10, 64
TRAINING = Training(steps=700, batch_size=192, lr=1e-2)


def planted(frames: int, clips: int, seed: int) -> tuple[Tensor, LabelledFrames]:
    """Frames that are sums of 3 of 50 atoms; the first is the class of `loudness`, and `brightness` is drawn."""
    atoms = torch.nn.functional.normalize(torch.randn(ATOMS, WIDTH, generator=torch.Generator().manual_seed(5)), dim=1)
    g = torch.Generator().manual_seed(seed)
    value = torch.randint(0, CLASSES, (frames,), generator=g)
    rest = torch.rand(frames, ATOMS - CLASSES, generator=g).topk(ACTIVE - 1).indices + CLASSES
    amounts = torch.zeros(frames, ATOMS).scatter_(1, torch.cat([value[:, None], rest], 1), 1.0)
    random = torch.randint(0, CLASSES, (frames,), generator=g)
    x = amounts @ atoms
    clip_N = np.arange(frames) * clips // frames
    return x, LabelledFrames(x, {"loudness": value.float(), "brightness": random.float()}, clip_N, [""] * clips)


@pytest.fixture(scope="module")
def grid() -> Grid:
    (train, _), (_, probed), (_, test), (_, valid) = (planted(5000 if n == 0 else 1200, 40, n) for n in range(4))
    penalties = [0.0, 0.3, 1.2]
    return evaluate(train, probed, test, sizes=[SIZE], penalties=penalties, valid=valid, training=TRAINING, nulls=3)


def saes(grid: Grid) -> list[dict]:
    return [row for row in grid.report.rows if row["probe on"] == SAE_ROW]


def test_known_atoms_are_explained_at_the_true_sparsity(grid: Grid) -> None:
    """3 of 50 atoms are active: SAEs about as sparse explain at least 95 % (section E, check 6)."""
    near = [row for row in saes(grid) if abs(row["sparsity"] - (1 - ACTIVE / ATOMS)) < 0.03]
    assert near
    assert max(row["explained variance"] for row in near) >= 0.95
    assert all(row["loudness"].value >= 0.95 for row in saes(grid))
    assert all(row["loudness, less x"].low > -0.05 for row in saes(grid))


def test_random_labels_are_read_at_the_majority(grid: Grid) -> None:
    by_kind = {row["probe on"]: row for row in grid.report.rows}
    majority = by_kind[MAJORITY]["brightness"].value
    for row in (*saes(grid), by_kind[DENSE]):
        # 1,200 frames: three standard errors
        assert abs(row["brightness"].value - majority) < 3 * np.sqrt(0.1 * 0.9 / 1200)
        assert abs(row["brightness, shuffled"] - majority) < 3 * np.sqrt(0.1 * 0.9 / 1200)
        assert "loudness" not in (row["not distinguishable from chance"] or "")
    # 95 % bands: one of the four may lie outside
    marked = [row["not distinguishable from chance"] == "brightness" for row in (*saes(grid), by_kind[DENSE])]
    assert sum(marked) >= len(marked) - 1


def test_a_larger_penalty_keeps_fewer_features(grid: Grid) -> None:
    """Section E, check 7."""
    rows = saes(grid)
    assert [row["lambda"] for row in rows] == [0.0, 0.3, 1.2]
    l0 = [row["L0"] for row in rows]
    assert l0 == sorted(l0, reverse=True)
    assert l0[0] > 10 * l0[-1]
    assert all(row["sparsity"] == pytest.approx(1 - row["L0"] / SIZE) for row in rows)


def test_the_random_sae_and_x_stand_beside(grid: Grid) -> None:
    (random,) = [row for row in grid.report.rows if row["probe on"] == RANDOM]
    assert random["sparsity"] == pytest.approx(0.5, abs=0.1)  # half of the pre-activations are positive
    assert random["explained variance"] is None
    (dense,) = [row for row in grid.report.rows if row["probe on"] == DENSE]
    assert dense["loudness, less x"] is None
    assert grid.report.about["classes"] == {"loudness": 20, "brightness": 20}


def test_the_best_is_the_sparsest_that_reads_as_well(grid: Grid) -> None:
    kept = grid.report.about["kept"]
    assert kept == {"features": SIZE, "lambda": 1.2}
    assert (grid.best.d_sae, set(grid.probes)) == (SIZE, {"loudness", "brightness"})
    scores = {(8, 0.1): (0.9, 0.5), (8, 0.2): (0.89, 0.8), (8, 0.3): (0.8, 0.9)}
    assert best_of(scores) == (8, 0.2)


ONES = np.ones((3, 10))


def reading(share: float, frames: int = 100) -> Reading:
    return Reading(np.arange(frames) < share * frames, np.arange(frames) % 10, 10)


def test_intervals_are_over_clips_and_changes_are_paired() -> None:
    one = reading(0.7)
    accuracy = one.accuracy(np.vstack([np.ones(10), np.random.default_rng(0).exponential(size=(200, 10))]))
    assert (accuracy.value, accuracy.count) == (0.7, 10)
    assert one.change(one, ONES).value == one.change(one, ONES).low == one.change(one, ONES).high == 0
    assert one.change(reading(0.5), ONES).value == pytest.approx(0.2)
    # a clip of which all frames are wrong, weighted by 0, no longer counts
    half = Reading(np.arange(100) % 10 > 0, np.arange(100) % 10, 10)
    weights = np.vstack([np.ones(10), [0.0] + [1.0] * 9, [0.0] + [1.0] * 9])
    assert half.accuracy(weights).value == 0.9
    assert half.accuracy(weights).high > 0.97


def test_penalties_are_searched_until_the_sparsity_spreads() -> None:
    train, _ = planted(1000, 30, 0)
    found = spread(train, train[:500], SIZE, 3, replace(TRAINING, steps=300))
    assert found == sorted(found)
    assert PILOT[0] <= found[0] < found[-1] <= PILOT[-1]
    assert found[-1] > 10 * found[0]


def test_frames_without_a_value_are_left_out() -> None:
    _, probed = planted(400, 10, 1)
    values = probed.values["loudness"].clone()
    values[::2] = torch.nan
    some = replace(probed, values={"loudness": values})
    read = Readings(some, some, classes_of(some, some), 0, 0, 50).of(some.x_ND, some.x_ND)["loudness"]
    assert len(read.right_M) == 200
    assert read.null is None
    assert len(fewer(probed, 100).clip_N) == 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": [64], "penalties": [0.1, -1.0]}, "--lambdas: -1 is below 0"),
    ],
)
def test_what_makes_no_sense(options: dict, message: str) -> None:
    x, frames = planted(100, 10, 0)
    with pytest.raises(EvaluationError, match=message):
        evaluate(x, frames, frames, training=TRAINING, **options)


def test_nothing_to_read() -> None:
    x, frames = planted(100, 10, 0)
    constant = replace(frames, values={"loudness": torch.zeros(100)})
    with pytest.raises(EvaluationError, match="neither pitch nor loudness nor brightness differs"):
        evaluate(x, constant, constant, sizes=[64], training=TRAINING)


# --- the command ---


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Short tones of several levels and pitches."""
    rng, lines = np.random.default_rng(0), ["path,split,label"]
    for index in range(12):
        time = np.arange(9600) / 24_000
        tone = np.sin(2 * np.pi * 110 * 2 ** (index % 6 / 3) * time) * np.linspace(0.02, 0.5, len(time))
        soundfile.write(tmp_path / f"{index}.wav", tone + 0.01 * rng.standard_normal(len(time)), 24_000)
        lines.append(f"{index}.wav,{'test' if index % 3 == 2 else 'train'},a")
    (tmp_path / "tones.csv").write_text("\n".join(lines))
    return tmp_path / "tones.csv"


def test_command(steer: Run, manifest: Path, codec_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchcrepe", reason="extra eval")
    pytest.importorskip("matplotlib", reason="extra eval")
    out = tmp_path / "out"
    flags = ("--hidden", "16,32", "--lambdas", "0.01,1", "--steps", 20, "--batch", 64, "--nulls", 0)
    arguments = ("evaluate", "sae-grid", "--audio", manifest, "--model", codec_folder, "-o", out)
    code, shown, err = steer(*arguments, *flags)
    assert code == 0, err
    assert "accuracy, loudness" in " ".join(shown.split())
    assert {path.name for path in out.iterdir()} == {"sae-grid.json", "sae-grid.md", "sae-grid.png", "best"}
    sae = SAE.load(out / "best")
    assert (sae.info.site, sae.rms_norm) == ("latent", True)
    assert load_probes(out / "best" / "probes.safetensors")["loudness"].weights.shape == (20, sae.d_sae)
    code, shown, _ = steer(*arguments, *flags)
    assert "measured already" in shown


def test_mistakes_are_one_line(steer: Run, manifest: Path, codec_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchcrepe", reason="extra eval")
    arguments = ("evaluate", "sae-grid", "--audio", manifest, "--model", codec_folder, "-o", tmp_path / "out")
    for flags, said in (
        (("--hidden", "0"), "--hidden 0"),
        (("--lambdas", "x"), "--lambdas x"),
        (("--site", "none"), "none"),
        (("--splits", "other=test"), "no clips of split 'test'"),
    ):
        code, _, err = steer(*arguments, *flags)
        assert (code, err.count("\n")) == (2, 1), err
        assert said in err
        assert not (tmp_path / "out").exists()

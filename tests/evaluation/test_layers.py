"""Probing of layers of which one is known to hold the label, and the sweep of SAEs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.config import EvaluationError
from evaluation.dataset import Dataset
from evaluation.label_probe import chosen_strength, paper_probe, predictions
from evaluation.label_sets import LabelSets, label_sets
from evaluation.layers import AT_CHANCE, Sweep, evaluate
from evaluation.pooled import default_sites
from evaluation.pooled_saes import DENSE, PCA, RANDOM, SAE_NAME, SECOND, active_of, width_of
from evaluation.report import Interval, Report
from hooks import wrap_model
from tests.tiny_encoder import tiny_encoder, tones

pytest.importorskip("sklearn", reason="extra eval")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> LabelSets:
    return label_sets(Dataset(tones(tmp_path_factory.mktemp("audio"))), "label")


def test_the_papers_numbers_of_active_features() -> None:
    # int of floats would be 409 only by luck: (1 - .9) * 2048 is 204.79999999999995
    assert [active_of(2048, one) for one in (75, 80, 85, 90, 95, 99)] == [512, 409, 307, 204, 102, 20]
    assert [active_of(512, one) for one in (75.0, 80.0, 85.0, 90.0, 95.0, 99.0)] == [128, 102, 76, 51, 25, 5]
    assert (width_of(768), width_of(192)) == (2048, 512)
    with pytest.raises(EvaluationError, match="leaves 0 of 20 features"):
        active_of(20, 99)


def test_the_layer_that_tells_and_the_one_that_does_not(sets: LabelSets) -> None:
    report = evaluate(tiny_encoder(), sets, ["encoder.0", "encoder.1"], nulls=20)
    first, second = report.rows
    assert first["accuracy"].value >= 0.95 and first["remark"] is None
    assert first["shuffled"] == pytest.approx(1 / 3, abs=0.12)
    assert second["remark"] == AT_CHANCE and second["accuracy"].value < 0.6
    assert {row["vectors"] for row in report.rows} == {DENSE}
    assert report.about["accuracy by cross-validation"]["encoder.0"] > 0.95
    assert report.title == "Accuracy of a linear probe for label on utterance vectors of tiny"


@pytest.fixture(scope="module")
def swept(sets: LabelSets) -> Report:
    sweep = Sweep(sparsities=(75.0, 95.0), width=64, crops=2, seeds=2, steps=150)
    return evaluate(tiny_encoder(), sets, ["encoder.0"], sweep, nulls=4)


def test_a_sweep_has_the_controls_beside_it(swept: Report) -> None:
    dense, *rows = swept.rows
    assert swept.about["sites of the sweep"] == ["encoder.0"]
    by_kind = {(row["vectors"], row["sparsity"]): row for row in rows}
    assert set(by_kind) == {
        (name, sparsity) for name in (SAE_NAME, SECOND, RANDOM, PCA) for sparsity in ("75 %", "95 %")
    }
    for row in rows:
        # what it loses is the difference of the two, on the same clips
        assert row["to dense"].value == pytest.approx(row["accuracy"].value - dense["accuracy"].value, abs=1e-9)
        assert row["active"] == (16 if row["sparsity"] == "75 %" else 3)
    errors = {key: row["error / variance"] for key, row in by_kind.items()}
    assert all(isinstance(error, Interval) and error.low <= error.value <= error.high for error in errors.values())
    assert errors[SAE_NAME, "75 %"].value < 0.3 < errors[RANDOM, "75 %"].value
    assert errors[PCA, "75 %"].value < errors[PCA, "95 %"].value < 0.6
    assert by_kind[SAE_NAME, "75 %"]["accuracy"].value > 0.9
    assert by_kind[SAE_NAME, "75 %"]["shuffled"] is not None


def test_labels_that_have_nothing_to_do_with_the_sound(sets: LabelSets) -> None:
    """Of 5 draws all but one at most stay in the band of shuffled labels: it is the 95th percentile."""
    rng, remarks = np.random.default_rng(0), []
    for seed in range(5):
        values = {"train_y": rng.integers(0, 3, len(sets.train)), "held_out_y": rng.integers(0, 3, len(sets.held_out))}
        random = LabelSets(**{**vars(sets), **values})
        (row,) = evaluate(tiny_encoder(), random, ["encoder.0"], nulls=10, seed=seed).rows
        remarks.append(row["remark"])
    assert remarks.count(AT_CHANCE) >= 4


def test_the_papers_settings_run_through(sets: LabelSets) -> None:
    report = evaluate(tiny_encoder(), sets, ["encoder.0"], nulls=1, paper=True)
    assert report.about["settings of"] == "the paper"
    assert report.rows[0]["accuracy"].value > 0.4  # raw, tiny vectors under Adam at 1e-3


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SPEECH = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}


@pytest.mark.parametrize("kind", ["Hubert", "WavLM", "MERT", "AST"])
def test_untrained_networks_report_chance(kind: str, sets: LabelSets) -> None:
    """The published models' classes with random weights, and labels that have nothing to do with the sounds."""
    transformers = pytest.importorskip("transformers", reason="extra ssl")
    pytest.importorskip("torchaudio", reason="AST's spectrograms")
    torch.manual_seed(0)
    if kind == "AST":
        module = transformers.ASTModel(transformers.ASTConfig(**SMALL))
    else:
        more = {"conv_bias": False, "sample_rate": 24_000} if kind == "MERT" else {}
        name = "Hubert" if kind == "MERT" else kind
        module = getattr(transformers, f"{name}Model")(
            getattr(transformers, f"{name}Config")(**SMALL, **SPEECH, **more)
        )
    model = wrap_model(module)
    assert model.sample_rate == (24_000 if kind == "MERT" else 16_000)
    rng = np.random.default_rng(1)
    train, held_out = sets.train[:40], sets.held_out[:20]
    values = {"train": train, "held_out": held_out} | {
        f"{name}_y": rng.integers(0, 2, len(some)) for name, some in (("train", train), ("held_out", held_out))
    }
    random = LabelSets(**{**vars(sets), **values, "classes": ["a", "b"]})
    sweep = Sweep(sparsities=(90.0,), crops=1, seeds=1, steps=20)
    report = evaluate(model, random, default_sites(model), sweep, nulls=10)
    tried = [row for row in report.rows if row["shuffled"] is not None]
    assert len(tried) == len(default_sites(model)) + len(report.about["sites of the sweep"])
    # the 95th percentile of ten draws is passed by chance too
    assert sum(row["remark"] == AT_CHANCE for row in tried) >= len(tried) - 1


# --- the probe ---


def test_the_probe_finds_what_is_linear() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 20))
    y = (x @ rng.normal(size=(20, 4))).argmax(1)
    strength, inner = chosen_strength(x[:400], y[:400], np.arange(400) % 5)
    answers = predictions(x[:400] * 1e-3, y[:400], x[400:] * 1e-3, [strength])[0]  # the scale does not matter
    assert (answers == y[400:]).mean() > 0.85 and inner > 0.85
    by_adam = paper_probe(x[:400], y[:400], x[400:], np.arange(400) % 5 == 0, epochs=60)
    assert (by_adam == y[400:]).mean() > 0.6  # 1e-3 is slow


def test_more_dimensions_than_clips_and_constant_ones() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(60, 3)), np.zeros((60, 200)), rng.normal(size=(60, 1))], axis=1)
    y = (x[:, 0] > 0).astype(int)
    assert (predictions(x[:40], y[:40], x[40:], [1.0])[0] == y[40:]).mean() > 0.8
    wide = np.concatenate([x, 0.01 * rng.normal(size=(60, 500)) + x[:, :1]], axis=1)
    assert (predictions(wide[:40], y[:40], wide[40:], [0.1, 1.0]) == y[40:]).mean() > 0.9
    assert predictions(np.ones((4, 2)), np.array([0, 1, 1, 1]), np.ones((3, 2)), [1.0]).tolist() == [[1, 1, 1]]


# --- clips with a label ---


def manifest(folder: Path, *rows: str) -> Dataset:
    (folder / "s").mkdir(parents=True)
    for row in rows:
        (folder / "s" / row.partition(",")[0]).touch()
    (folder / "s" / "manifest.csv").write_text("path,split,label,speaker\n" + "\n".join(rows))
    return Dataset(folder)


def test_a_class_that_is_not_trained_on_is_left_out_and_noted(tmp_path: Path) -> None:
    rows = [f"{n}.wav,train,{'ab'[n % 2]}," for n in range(8)] + ["8.wav,test,a,", "9.wav,test,c,"]
    found = label_sets(manifest(tmp_path, *rows), "label")
    assert (found.classes, len(found.held_out), found.held_out_y.tolist()) == (["a", "b"], 1, [0])
    assert found.notes == ["1 held-out clips have a label that no clip to train on has: left out"]
    assert found.majority == 1.0

"""Masked prediction of units: what is masked, what is learned, that a stopped run goes on, and what is exported."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hooks import Clip, capture, open_model
from hooks.model import Encoder
from training import train_ssl
from training.tracks import SHARES, make_tracks
from training.train_ssl import (
    LAYER,
    SECOND,
    SEEN,
    SPAN,
    STARTS,
    Student,
    Trainer,
    mask_spans,
    normalized,
    probed,
)
from training.units import frame_count, mfcc, nearest, sample_count
from training.utterances import SAMPLE_RATE, Mixer, Piece

transformers = pytest.importorskip("transformers", reason="the starter encoder is a HuBERT of transformers (extra ssl)")
pytest.importorskip("torchaudio", reason="cepstra use its filters (extra eval)")
pytest.importorskip("sklearn", reason="clusters are scikit-learn's (extra eval)")

REAL_BYTES = 2 * sum(weight.numel() for weight in Student().hubert.parameters())
TRACK, WINDOW, UNITS, WIDTH = 120, 60, (20, 30), 48


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Everything smaller, but the real kernels, strides and rates."""
    with pytest.MonkeyPatch.context() as patch:
        sizes = {"TRACK": TRACK, "WINDOW": WINDOW, "UNITS": UNITS, "WIDTH": WIDTH, "FRONT": (16,) * 7}
        for name, value in sizes.items():
            patch.setattr(train_ssl, name, value)
        patch.setattr("training.tracks.TRACK", TRACK)
        yield


def chirp(seconds: float, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2 * np.pi * (rng.uniform(100, 2000) * time + rng.uniform(-200, 1000) * time**2)
    return (0.1 * np.sin(phase) + 0.01 * rng.standard_normal(len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def pieces() -> list[Piece]:
    rng = np.random.default_rng(0)
    lengths = {"digits": 0.4, "orders": 3.0, "esc10": 5.0}
    return [Piece(group, "", group, chirp(length, rng)) for group, length in lengths.items() for _ in range(4)]


@pytest.fixture(scope="module")
def tracks(small: None, pieces: list[Piece]) -> np.ndarray:
    return make_tracks(pieces, 4, seed=0)


@pytest.fixture
def trainer(tracks: np.ndarray, tmp_path: Path) -> Trainer:
    return another(tracks, tmp_path)


def another(tracks: np.ndarray, folder: Path) -> Trainer:
    return Trainer(tracks, tracks[:1], Mixer([], [], [], seed=0), folder, minutes=1.0, rate=3e-2)


# --- masks and tracks ---


def test_about_half_is_masked_in_whole_spans() -> None:
    mask_BT = mask_spans(400, 160, np.random.default_rng(0))
    assert mask_BT.shape == (400, 160)
    # a frame stays if no span begins in the ten places from which it would be reached, nor the one that is always there
    stays = (1 - STARTS) ** SPAN * (1 - SPAN / (160 - SPAN + 1))
    assert mask_BT[:, SPAN:-SPAN].mean() == pytest.approx(1 - stays, abs=0.02)  # 400 rows of about 10 spans
    assert mask_BT.mean() == pytest.approx(0.5, abs=0.05)
    assert mask_spans(1000, SPAN + 1, np.random.default_rng(0)).any(1).all()
    edges = np.diff(np.pad(mask_BT, ((0, 0), (1, 1))).astype(int), axis=1)
    for row in edges:
        lengths = np.flatnonzero(row == -1) - np.flatnonzero(row == 1)
        assert (lengths >= SPAN).all()
    assert np.array_equal(mask_BT, mask_spans(400, 160, np.random.default_rng(0)))


def test_tracks_are_full_of_sound_and_the_same_for_a_seed(pieces: list[Piece], tracks: np.ndarray) -> None:
    assert tracks.shape == (4, sample_count(TRACK))
    assert tracks.dtype == np.int16
    quiet = np.abs(tracks) < 10
    assert quiet.mean() < 0.3  # gaps of up to half a second
    assert np.array_equal(make_tracks(pieces, 2, seed=0), tracks[:2])
    assert not np.array_equal(make_tracks(pieces, 2, seed=1), tracks[:2])


def test_groups_have_their_shares_of_the_time() -> None:
    # signs survive the change of speed: each group is known by its sign
    groups = {"digits": np.ones(2000, np.float32), "esc10": -np.ones(8000, np.float32)}
    pieces = [Piece(group, "", "", wave) for group, wave in groups.items()]
    tracks = make_tracks(pieces, 300, seed=0)
    ratio = (tracks > 300).sum() / (tracks < -300).sum()
    assert ratio == pytest.approx(SHARES["digits"] / SHARES["esc10"], rel=0.2)  # about 250 long pieces


def test_sound_is_normalised_as_the_library_does_it() -> None:
    extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=SAMPLE_RATE, do_normalize=True)
    wave = (0.05 + 0.1 * np.random.default_rng(0).standard_normal(3000)).astype(np.float32)
    theirs = extractor(wave, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_values[0]
    torch.testing.assert_close(normalized(wave), theirs, atol=1e-5, rtol=0)  # float32


# --- units and windows ---


def test_windows_have_the_units_of_their_own_frames(trainer: Trainer) -> None:
    trainer.resume()
    centres_KD = load_file(trainer.folder / "units.safetensors")["centres"]
    assert centres_KD.shape == (UNITS[0], 39)
    assert trainer.units["train"].shape == (len(trainer.tracks), TRACK)
    trainer.mixer.placed = lambda wave: wave  # type: ignore[method-assign]
    audio_BN, units_BT, mask_BT = trainer.draw(3)
    assert frame_count(audio_BN.shape[1]) == WINDOW
    assert units_BT.shape == mask_BT.shape == (3, WINDOW)
    again_BT = nearest(mfcc(audio_BN), centres_KD)
    # level was that of the whole track there, and differences end with the window here
    assert (again_BT == units_BT).float().mean() > 0.6
    assert (again_BT[:, 1:] == units_BT[:, :-1]).float().mean() < (again_BT == units_BT).float().mean() - 0.1


def test_second_units_are_clusters_of_the_middle_layer(trainer: Trainer) -> None:
    trainer.relabel(2)
    assert trainer.iteration == 2
    centres_KD = load_file(trainer.folder / "units.safetensors")["centres"]
    assert centres_KD.shape == (UNITS[1], WIDTH)
    x_BTD = trainer.averaged().features(normalized(trainer.tracks[:2]))
    assert (nearest(x_BTD, centres_KD) == trainer.units["train"][:2]).float().mean() > 0.99  # bfloat16 by batch size
    assert trainer.units["valid"].shape == (1, TRACK)


# --- learning ---


@pytest.mark.parametrize("iteration", [1, 2])
def test_an_untrained_model_knows_nothing_and_learns(trainer: Trainer, iteration: int) -> None:
    trainer.relabel(iteration)
    batch = trainer.draw(2)
    losses = []
    for _ in range(6):
        terms = trainer.loss(trainer.model, *batch)
        trainer.learn(terms["total"])
        losses.append(terms["masked"].item())
    # all units alike, but for the cosines of random vectors: each has a deviation of 1 / sqrt(256) / 0.1
    assert losses[0] == pytest.approx(math.log(UNITS[iteration - 1]), abs=1.0)
    assert losses[-1] < losses[0] - 0.2


def test_only_masked_frames_count_but_at_first(trainer: Trainer) -> None:
    trainer.resume()
    trainer.model.eval()
    audio_BN, units_BT, mask_BT = trainer.draw(2)
    other_BT = (units_BT + 1) % UNITS[0]
    elsewhere_BT = torch.where(mask_BT, units_BT, other_BT)

    def losses(used: float) -> list[float]:
        trainer.used = used
        given = (units_BT, elsewhere_BT, other_BT)
        return [trainer.loss(trainer.model, audio_BN, each_BT, mask_BT)["total"].item() for each_BT in given]

    right, elsewhere, everywhere = losses(SEEN)
    assert right == elsewhere != everywhere
    right, elsewhere, _ = losses(0.0)
    assert right != elsewhere
    terms = trainer.loss(trainer.model, audio_BN, units_BT, mask_BT)
    assert right == pytest.approx((terms["masked"] + terms["seen"]).item())


def test_a_training_has_both_iterations_and_says_how_it_goes(
    trainer: Trainer, pieces: list[Piece], monkeypatch: pytest.MonkeyPatch
) -> None:
    # each step takes a quarter of the time
    monkeypatch.setattr("training.timed.time", SimpleNamespace(monotonic=itertools.count(step=15).__next__))
    trainer.probes = {"groups": (pieces, pieces)}
    trainer.train(size=1, log_every=1, check_every=1)
    rows = [json.loads(line) for line in (trainer.folder / "log.jsonl").read_text().splitlines()]
    assert [row["used"] for row in rows] == [0.0, 0.25, 0.5, 0.75]
    assert [row["iteration"] for row in rows] == [1 + (row["used"] >= SECOND) for row in rows] == [1, 1, 2, 2]
    for row in rows:
        assert row["valid"] == pytest.approx(math.log(UNITS[row["iteration"] - 1]), abs=1.0)
        assert 0 <= row["valid_accuracy"] <= 1
        assert 0 <= row["groups"] <= 1


def test_a_probe_tells_apart_what_is_apart() -> None:
    rng = np.random.default_rng(0)
    time = np.arange(4000) / SAMPLE_RATE
    tones = [np.sin(2 * np.pi * rng.uniform(200, 300) * time).astype(np.float32) for _ in range(8)]
    noises = [rng.standard_normal(4000).astype(np.float32) for _ in range(8)]
    clips = [Piece("", "", name, wave) for name, waves in (("t", tones), ("n", noises)) for wave in waves]
    assert probed(Student().eval(), (clips[::2], clips[1::2])) == 1.0


# --- stopped runs ---


@pytest.mark.parametrize("iteration", [1, 2])
def test_a_stopped_run_goes_on_with_its_weights_and_units(trainer: Trainer, tracks: np.ndarray, iteration: int) -> None:
    trainer.relabel(iteration)
    batch = trainer.draw(1)
    trainer.learn(trainer.loss(trainer.model, *batch)["total"])
    trainer.save()
    again = another(tracks, trainer.folder)
    again.resume()
    assert (again.step, again.iteration) == (1, iteration)
    assert all(torch.equal(again.units[name], units) for name, units in trainer.units.items())
    losses = []
    for each in (trainer, again):
        torch.manual_seed(0)
        each.learn(each.loss(each.model, *batch)["total"])
        losses.append(each.loss(each.model.eval(), *batch)["total"])
    assert torch.equal(*losses)
    assert all(torch.equal(again.average[name], value) for name, value in trainer.average.items())
    assert not list(trainer.folder.glob(".*.partial"))


def test_a_run_that_stopped_between_new_units_and_the_next_checkpoint_goes_on(
    trainer: Trainer, tracks: np.ndarray
) -> None:
    trainer.relabel(1)
    trainer.learn(trainer.loss(trainer.model, *trainer.draw(1))["total"])
    trainer.used = 0.39
    trainer.save()
    trainer.relabel(2)
    (trainer.folder / ".units.safetensors.0a1b2c3d.partial").write_bytes(b"cut")
    again = another(tracks, trainer.folder)
    again.resume()
    assert (again.step, again.used, again.iteration) == (1, 0.39, 2)
    assert all(torch.equal(again.units[name], units) for name, units in trainer.units.items())
    again.learn(again.loss(again.model, *again.draw(1))["total"])


def test_units_of_other_tracks_are_refused(trainer: Trainer, tracks: np.ndarray) -> None:
    trainer.resume()
    with pytest.raises(ValueError, match="another set of tracks: use the same --hours"):
        another(tracks[:3], trainer.folder).resume()


# --- the result ---


def test_the_weights_are_small_enough_to_ship() -> None:
    assert 3e6 < REAL_BYTES < 8e6


def test_what_is_exported_opens_everywhere_and_is_the_averaged_model(trainer: Trainer) -> None:
    trainer.resume()
    for _ in range(2):
        trainer.learn(trainer.loss(trainer.model, *trainer.draw(1))["total"])
    path = trainer.export()
    state = load_file(path)
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert not any(name.startswith(("heads", "hubert")) for name in state)

    wave = 0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32)
    student = trainer.averaged()
    with torch.no_grad():
        expected = student.hubert(normalized(wave)[None], output_hidden_states=True).hidden_states

    model = open_model(trainer.folder)
    assert isinstance(model, Encoder)
    assert (model.sample_rate, model.site("encoder.0").frame_rate, model.dtype) == (16_000, 50.0, torch.float32)
    automatic = transformers.AutoModel.from_pretrained(trainer.folder).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(trainer.folder)
    inputs = extractor(wave, sampling_rate=SAMPLE_RATE, return_tensors="pt")
    with torch.no_grad():
        theirs = automatic(**inputs, output_hidden_states=True).hidden_states
    ours = next(
        iter(
            capture(
                model, [Clip(torch.from_numpy(wave), SAMPLE_RATE)], ["encoder.0", f"encoder.{LAYER - 1}", "encoder.3"]
            )
        )
    )
    for layer, values in ((1, "encoder.0"), (LAYER, f"encoder.{LAYER - 1}"), (4, "encoder.3")):
        # halves have 11 bits: relative errors of 5e-4 in each weight, which add up at random; values are of size 1
        torch.testing.assert_close(theirs[layer], expected[layer], atol=0.02, rtol=0)
        torch.testing.assert_close(ours.activations[values].reshape(theirs[layer].shape), theirs[layer])

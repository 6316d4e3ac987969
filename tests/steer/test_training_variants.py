"""Trainings as others do them: flags of `SAE` and `TrainConfig` that are off by default."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steer.errors import SAEError, TrainingError
from steer.sae import SAE
from steer.trainee import TrainConfig, Trainee, rate_at
from steer.training import WATCH_EVERY, measure, train_sae
from tests.steer.test_training import CPU, KINDS, planted, quietly

KIND = pytest.mark.parametrize("kind", KINDS)


@KIND
def test_an_sae_without_biases_never_gets_any(kind: str, tmp_path: Path) -> None:
    data, _ = planted(2000)
    for flag, bias, other in (("latent_bias", "b_enc", "b_dec"), ("decoder_bias", "b_dec", "b_enc")):
        sae = quietly(data, replace(KINDS[kind], **{flag: False}))
        assert not getattr(sae, bias).any()
        assert getattr(sae, other).any()
        loaded = SAE.load(sae.save(tmp_path / flag))
        assert [loaded.latent_bias, loaded.decoder_bias] == [flag != "latent_bias", flag != "decoder_bias"]
        assert repr(loaded) == repr(sae)
        assert torch.equal(loaded.encode(data), sae.encode(data))
        # also when all parameters are made trainable again, as for fine-tuning
        assert [name for name, value in loaded.requires_grad_().named_parameters() if not value.requires_grad] == [bias]


def test_a_bias_that_should_not_be_there_is_refused(tmp_path: Path) -> None:
    sae = SAE(4, 8, k=2, latent_bias=False)
    with torch.no_grad():
        sae.b_enc[3] = 1.0
    with pytest.raises(SAEError, match="b_enc should be 0"):
        SAE.load(sae.save(tmp_path))


def test_other_saes_say_nothing_of_biases(tmp_path: Path) -> None:
    assert "bias" not in (SAE(4, 8, k=2).save(tmp_path) / "cfg.json").read_text()


def test_decoder_rows_of_any_length() -> None:
    data, _ = planted()
    lengths = quietly(data, replace(KINDS["relu"], unit_norm=False, rescale=False)).W_dec.norm(dim=1)
    assert lengths.max() > lengths.min() + 1e-3
    # the default, without the scale that is folded in: all rows have length 1
    assert torch.allclose(quietly(data, replace(KINDS["relu"], rescale=False)).W_dec.norm(dim=1), torch.ones(32))


def test_without_rescale_activations_are_taken_as_they_are() -> None:
    data, _ = planted()
    assert Trainee("", replace(KINDS["topk"], rescale=False), data, CPU).scale == 1.0
    assert Trainee("", KINDS["topk"], data, CPU).scale == pytest.approx(4 / float(data.norm(dim=1).mean()))


def test_without_the_auxiliary_loss_dead_features_stay_dead() -> None:
    """The encoder's column of a feature that never fires gets a gradient from that loss alone."""
    data, _ = planted(512)
    for auxiliary in (True, False):
        trainee = Trainee("", replace(KINDS["relu"], auxiliary=auxiliary, dead_after=0, sparsity=0.0), data, CPU)
        with torch.no_grad():
            trainee.sae.b_enc[0] = -1e4
        trainee.silent_F[0] = trainee.longest = 1
        before = trainee.sae.W_enc[:, 0].detach().clone()
        trainee.step(data, 0)
        assert torch.equal(before, trainee.sae.W_enc[:, 0]) != auxiliary


def test_eps_is_adams() -> None:
    data, _ = planted(512)
    trainee = Trainee("", replace(KINDS["topk"], eps=6.25e-10), data, CPU)
    assert [group["eps"] for group in trainee.optimizer.param_groups] == [6.25e-10]


def test_a_constant_rate() -> None:
    assert {rate_at(step, 100, "constant") for step in range(100)} == {1.0}
    data, _ = planted(512)
    trainee = Trainee("", replace(KINDS["topk"], schedule="constant", lr=2e-3), data, CPU)
    trainee.step(data, 0)
    assert trainee.optimizer.param_groups[0]["lr"] == 2e-3


# --- early stop ---

PATIENT = TrainConfig("topk", k=3, expansion=2, steps=4000, batch_size=64, lr=2e-2, patience=60, schedule="constant")


def halves() -> tuple[Tensor, Tensor]:
    """Frames to train on, so few that they are learned by heart, and others."""
    data, _ = planted(600)
    return data[:64], data[64:]


def test_stops_when_the_held_out_error_no_longer_falls() -> None:
    train, held_out = halves()
    lines: list[dict] = []
    sae = train_sae(train, PATIENT, validation=held_out, progress=False, device="cpu", callback=lines.append)
    assert lines[-1]["step"] < PATIENT.steps
    # the weights of the least error: better on the held-out frames than those of all steps
    through = train_sae(
        train, replace(PATIENT, steps=500, patience=0), validation=held_out, progress=False, device="cpu"
    )
    assert sae.info.metrics["explained_variance"] > through.info.metrics["explained_variance"]
    assert sae.info.metrics == measure(sae, held_out)
    assert sae.info.metrics["frames"] == len(held_out)


def test_the_weights_are_those_of_the_least_error() -> None:
    train, held_out = halves()
    trainee = Trainee("", PATIENT, train, CPU)
    errors = []
    for step in range(PATIENT.steps):
        trainee.step(train, step)
        if (step + 1) % WATCH_EVERY == 0:
            x = held_out * trainee.scale
            errors.append(float((x - trainee.sae(x)).detach().square().sum(-1).mean()))
            trainee.look(held_out, step + 1)
        if trainee.watch.done:
            break
    assert len(errors) == errors.index(min(errors)) + 1 + PATIENT.patience // WATCH_EVERY
    x = held_out
    with torch.no_grad():
        error = float((x - trainee.finished()(x)).square().sum(-1).mean()) * trainee.scale**2
    assert error == pytest.approx(min(errors), rel=1e-4)  # the scale is folded in: other roundings


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    train, held_out = halves()

    def run(folder: Path, callback: Callable | None = None) -> SAE:
        options = {"progress": False, "device": "cpu", "checkpoint_every": 30, "callback": callback}
        return train_sae(train, PATIENT, folder, validation=held_out, **options)

    def interrupt(line: dict) -> None:
        if line["step"] == 60:
            raise InterruptedError

    whole = run(tmp_path / "whole")
    with pytest.raises(InterruptedError):
        run(tmp_path / "cut", interrupt)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), run(tmp_path / "cut").parameters(), strict=True))
    # and once it is done nothing is trained again
    steps: list[dict] = []
    again = run(tmp_path / "cut", steps.append)
    assert not steps
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": "cosine"}, "unknown schedule 'cosine'; there are linear, constant"),
        ({"eps": 0.0}, "eps has to be positive"),
        ({"patience": -1}, "patience 0 or more steps"),
        ({"patience": 10, "held_out": 0.0}, "patience needs held-out frames"),
    ],
)
def test_what_makes_no_sense(change: dict, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        quietly(planted(64)[0], replace(PATIENT, **change))


def test_validation_of_another_width() -> None:
    with pytest.raises(TrainingError, match="validation: frames of .*: 15.* not of .*: 16"):
        quietly(planted(64)[0], PATIENT, validation=torch.zeros(8, 15))


def test_a_width_that_is_no_multiple() -> None:
    data, _ = planted()
    sae = quietly(data, replace(KINDS["topk"], d_sae=21, expansion=2))
    assert (sae.d_in, sae.d_sae) == (16, 21) and sae.info.extra["training"]["d_sae"] == 21
    with pytest.raises(TrainingError, match="d_sae and lr have to be positive"):
        quietly(data, replace(KINDS["topk"], d_sae=0))

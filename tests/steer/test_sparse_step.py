"""The sparse step against autograd through the textbook formulas, which hold every feature."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from steer.activations import Soft
from steer.encoder import Encoder
from steer.parallel import Group
from steer.passes import ChosenPass, DensePass, Pass, rms_of, run_pass
from steer.sae import SAE
from steer.sparse_step import above, batch_topk_pairs, likely_bound, topk_pairs
from steer.trainee import TrainConfig, Trainee


def a_case(rows: int, d_in: int, d_sae: int, k: int, dtype: torch.dtype, **options: bool) -> tuple[SAE, Tensor]:
    torch.manual_seed(0)
    sae = SAE(d_in, d_sae, "topk", k, **options).to(dtype)
    with torch.no_grad():
        sae.b_enc.normal_(0, 0.3)
        sae.b_dec.normal_()
    return sae, torch.randn(rows, d_in, dtype=dtype)


def sparse_pass(sae: SAE, x_ND: Tensor, batch: bool) -> ChosenPass:
    sae.activation = "batchtopk" if batch else "topk"
    sae.threshold = torch.nn.Parameter(torch.zeros(sae.d_sae), requires_grad=False)
    return ChosenPass(sae, x_ND)


def textbook(sae: SAE, x_ND: Tensor, batch: bool) -> tuple[Tensor, Tensor]:
    """Reconstruction and features before RMS norm, with every feature in memory."""
    pre = (x_ND - sae.b_dec if sae.center else x_ND) @ sae.W_enc + sae.b_enc
    assert sae.k is not None
    least = pre.flatten().topk(sae.k * len(x_ND)).values[-1] if batch else pre.topk(sae.k).values[:, -1:]
    f_NF = pre.relu() * (pre >= least)
    return (f_NF / rms_of(sae, f_NF)) @ sae.W_dec + sae.b_dec, f_NF


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("rms_norm", [False, True])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("size", [(40, 12, 40, 5), (1100, 32, 300, 7), (3, 12, 40, 40)])
def test_gradients_are_those_of_autograd(
    batch: bool, rms_norm: bool, center: bool, size: tuple[int, int, int, int]
) -> None:
    sae, x = a_case(*size, torch.float64, rms_norm=rms_norm, center=center)
    target = torch.randn_like(x)
    run = sparse_pass(sae, x, batch)
    y, values_P, pairs = run.y_ND, run.values_P, run.pairs
    expected, f_NF = textbook(sae, x, batch)
    torch.testing.assert_close(y, expected, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(f_NF[pairs.rows_P, pairs.features_P], values_P, atol=1e-10, rtol=0)
    assert int((f_NF > 0).sum()) == len(values_P)
    parameters = {name: value for name, value in sae.named_parameters() if value.requires_grad}
    ours = torch.autograd.grad((y - target).square().sum(), list(parameters.values()))
    theirs = torch.autograd.grad((expected - target).square().sum(), list(parameters.values()))
    for name, a, b in zip(parameters, ours, theirs, strict=True):
        assert b.abs().max() > 1e-3, name
        torch.testing.assert_close(a, b, atol=1e-10 * float(b.abs().max()), rtol=1e-10, msg=name)


@pytest.mark.parametrize("activation", ["relu", "topk", "batchtopk"])
def test_vectors_without_features_have_finite_gradients(activation: str) -> None:
    sae = SAE(12, 40, activation, 5, rms_norm=True)
    x = torch.randn(9, 12) * torch.tensor([0.0] + 8 * [1.0])[:, None]  # no feature is positive at 0
    run = run_pass(sae, x)
    (run.error + run.l1).backward()
    assert sae.W_enc.grad is not None and torch.isfinite(sae.W_enc.grad).all() and sae.W_enc.grad.any()


@pytest.mark.parametrize("batch", [False, True])
def test_nothing_active(batch: bool) -> None:
    sae, x = a_case(9, 12, 40, 5, torch.float32)
    with torch.no_grad():
        sae.b_enc.fill_(-1000)
    run = sparse_pass(sae, x, batch)
    y = run.y_ND
    assert len(run.values_P) == 0 and float(run.least) == torch.inf
    assert torch.equal(y, sae.b_dec.expand_as(y))
    y.sum().backward()
    assert sae.W_enc.grad is not None and not sae.W_enc.grad.any()
    torch.testing.assert_close(sae.b_dec.grad, torch.full((12,), 9.0))


def encoder_of(pre_NF: Tensor) -> tuple[Encoder, Tensor]:
    """An encoder and inputs whose pre-activations are these."""
    return Encoder(pre_NF, torch.zeros(pre_NF.shape[1])), torch.eye(len(pre_NF))


def test_counts_over_the_batch() -> None:
    encoder, x = encoder_of(torch.tensor([[5.0, 4.0, 3.0], [1.0, 0.5, -2.0]]))
    pairs, values_P = batch_topk_pairs(encoder, x, 2)
    assert (pairs.rows_P.tolist(), pairs.features_P.tolist()) == ([0, 0, 0, 1], [0, 1, 2, 0])
    assert values_P.tolist() == [5, 4, 3, 1]
    pairs, _ = topk_pairs(encoder, x, 2)
    assert sorted(zip(pairs.rows_P.tolist(), pairs.features_P.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]


@pytest.mark.parametrize("loud", [0, 1, 2])
def test_a_batch_whose_first_rows_tell_nothing_of_the_others(loud: int) -> None:
    """The bound comes from some rows; where it is too high or low for the rest the result is the same."""
    torch.manual_seed(0)
    x, sae = torch.randn(600, 24), SAE(24, 100, "topk", 4).requires_grad_(False)
    x[::2] *= (1.0, 50.0, 0.01)[loud]  # every second row is looked at
    encoder = sae.encoder()
    pairs, values_P = batch_topk_pairs(encoder, x, 4)
    everything = encoder.preactivation(x).relu().flatten().topk(2400).values
    torch.testing.assert_close(values_P.sort(descending=True).values, everything, atol=1e-5, rtol=1e-5)
    assert pairs.rows_P.tolist() == sorted(pairs.rows_P.tolist())
    enough = len(above(encoder, x, likely_bound(encoder, x, 4))[2]) >= 2400
    assert enough == (loud != 1)


@pytest.mark.parametrize("activation", ["topk", "batchtopk"])
def test_same_losses_as_the_textbook_step(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty steps in fp32, with dead features and their auxiliary loss, against autograd through every feature."""
    torch.manual_seed(1)
    data = torch.randn(4000, 16) @ torch.randn(16, 16)
    config = replace(TrainConfig("topk"), activation=activation, k=4, expansion=8, steps=50, dead_after=600, lr=1e-3)

    def dense(sae: SAE, x_ND: Tensor, group: Group) -> Pass:
        return DensePass(sae, x_ND, Soft(textbook(sae, x_ND, activation == "batchtopk")[1]))

    def losses() -> list[dict[str, float]]:
        trainee = Trainee("", config, data, torch.device("cpu"))
        rows = torch.arange(200)
        terms = [trainee.step(data[(rows + 200 * step) % 4000], step) for step in range(50)]
        return [{name: float(value) for name, value in term.items()} for term in terms]

    ours = losses()
    monkeypatch.setattr("steer.trainee.run_pass", dense)
    theirs = losses()
    assert max(term["dead_share"] for term in ours) > 0
    assert ours[-1]["loss"] < 0.9 * ours[0]["loss"]
    for one, other in zip(ours, theirs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert one["l0"] == pytest.approx(other["l0"], abs=0.02)


def test_dead_features_are_those_that_were_silent_too_long() -> None:
    """They are not looked for while none can be dead; a trainee that goes on from a checkpoint knows that too."""
    torch.manual_seed(0)
    data = torch.randn(400, 8)
    config = TrainConfig("topk", k=1, expansion=8, steps=20, dead_after=100)
    trainee = Trainee("", config, data, torch.device("cpu"))
    seen = set()
    for step in range(10):
        trainee.step(data[40 * step : 40 * step + 40], step)
        assert trainee.longest >= int(trainee.silent_F.amax())
        dead = trainee.dead()
        assert dead.tolist() == (trainee.silent_F > 100).nonzero()[:, 0].tolist()
        seen.add(len(dead) > 0)
        other = Trainee("", config, data, torch.device("cpu"))
        other.load_state_dict(trainee.state_dict())
        assert torch.equal(other.dead(), dead) and other.longest == int(trainee.silent_F.amax())
    assert seen == {False, True}

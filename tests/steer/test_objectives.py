"""Objectives against plain sums over all features, and what a training does with each."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steer.activations import ACTIVATIONS
from steer.checkpoints import STATE
from steer.errors import TrainingError
from steer.objectives import OBJECTIVES, Matryoshka, Objective, name_of, plain
from steer.passes import Pass, run_pass
from steer.sae import SAE
from steer.trainee import TrainConfig, Trainee
from steer.training import train_sae

CONFIG = TrainConfig("batchtopk", k=3, expansion=4, steps=40, batch_size=64, lr=2e-3)
X = torch.randn(30, 12, generator=torch.Generator().manual_seed(3))
DATA = torch.randn(2000, 24, generator=torch.Generator().manual_seed(4)).relu() @ torch.randn(
    24, 12, generator=torch.Generator().manual_seed(5)
)


@pytest.fixture
def run(any_sae: SAE) -> Pass:
    return run_pass(any_sae.requires_grad_(True), X)


def test_penalties_and_nested_reconstructions(run: Pass) -> None:
    """Feature by feature: the reconstruction from one feature alone tells its value."""
    sae = run.sae
    alone_FND = torch.stack([run.partial(feature, feature + 1) for feature in range(sae.d_sae)])
    f_NF = (alone_FND * sae.W_dec[:, None]).sum(2).T / sae.W_dec.square().sum(1)
    whole = sae.b_dec + f_NF @ sae.W_dec
    torch.testing.assert_close(run.y_ND, whole, atol=1e-4, rtol=1e-4)
    assert float(run.error) == pytest.approx(float((X - whole).square().sum(1).mean()), rel=1e-4)
    active_NF = f_NF.abs() > 1e-6
    assert torch.equal(active_NF.sum(0), run.count_F)
    assert float(run.l0) == pytest.approx(float(active_NF.sum(1).float().mean()), rel=1e-6)
    if sae.activation != "gated":
        assert float(run.l1) == pytest.approx(float(f_NF.sum(1).mean()), rel=1e-4)
    for end, y_ND in zip((1, 10, 40), run.nested([1, 10, 40]), strict=True):
        torch.testing.assert_close(y_ND, sae.b_dec + f_NF[:, :end] @ sae.W_dec[:end], atol=1e-4, rtol=1e-4)


def test_objectives_are_those_sums(run: Pass) -> None:
    error, own = float(run.error), float(run.own)
    assert (own > 0) == (run.sae.activation == "gated")
    expected = {
        "plain": error + own,
        "l1": error + 0.3 * float(run.l1) + own,
        "l0": error + 0.3 * float(run.l0) + own,
        "matryoshka": (sum(float(run.error_of(y)) for y in run.nested([2, 5, 10, 20])) + error) / 5
        + 0.3 * float(run.penalty)
        + own,
    }
    assert {name: pytest.approx(float(loss(run, 0.3)), rel=1e-5) for name, loss in OBJECTIVES.items()} == expected


@pytest.mark.parametrize("activation", ["topk", "batchtopk"])
def test_gradients_of_nested_reconstructions_are_those_of_the_textbook(
    random_sae: Callable[..., SAE], activation: str
) -> None:
    sae = random_sae(activation).double().requires_grad_(True)
    run, x = run_pass(sae, X.double()), X.double()
    targets = torch.randn(3, 30, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    mask_NF = torch.zeros(30, 40, dtype=torch.float64)
    mask_NF[run.pairs.rows_P, run.pairs.features_P] = 1  # type: ignore[attr-defined]
    f_NF = ((x - sae.b_dec) @ sae.W_enc + sae.b_enc) * mask_NF
    theirs = [sae.b_dec + f_NF[:, :end] @ sae.W_dec[:end] for end in (4, 9, 40)]
    names = ["W_enc", "b_enc", "W_dec", "b_dec"]
    grads = []
    for nested in (run.nested([4, 9, 40]), theirs):
        loss = sum((y_ND - target).square().sum() for y_ND, target in zip(nested, targets, strict=True))
        grads.append(torch.autograd.grad(loss, [getattr(sae, name) for name in names], retain_graph=True))  # type: ignore[arg-type]
    for name, a, b in zip(names, *grads, strict=True):
        assert b.abs().max() > 1e-3, name
        torch.testing.assert_close(a, b, atol=1e-10 * float(b.abs().max()), rtol=1e-10, msg=name)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_learns_by_every_objective(activation: str, objective: str) -> None:
    config = replace(CONFIG, activation=activation, objective=objective, sparsity=0.1)
    trainee = Trainee("", config, DATA, torch.device("cpu"))
    losses = [float(trainee.step(DATA, step)["loss"]) for step in range(20)]
    assert losses[-1] < 0.97 * losses[0]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_without_an_objective_it_is_the_activations_own(activation: str) -> None:
    own = {"relu": "l1", "gated": "l1", "jumprelu": "l0", "topk": "plain", "batchtopk": "plain"}[activation]
    weights = []
    for objective in ("", own):
        config = replace(CONFIG, activation=activation, objective=objective, steps=3)
        trainee = Trainee("", config, DATA, torch.device("cpu"))
        weights.append((float(trainee.step(DATA, 0)["loss"]), trainee.sae.W_enc.detach().clone()))
    assert weights[0][0] == weights[1][0] and torch.equal(weights[0][1], weights[1][1])


@pytest.mark.parametrize("activation", ["batchtopk", "relu"])
def test_matryoshka_puts_what_matters_into_the_first_features(activation: str) -> None:
    """A quarter of its dictionary explains more than a quarter of one without order, and the whole hardly less."""
    config = replace(CONFIG, activation=activation, steps=400, sparsity=0.1, dead_after=10_000)
    explained: dict[str, list[float]] = {}
    for objective in ("", "matryoshka"):
        sae = train_sae(DATA, config, objective=objective, progress=False, device="cpu")
        f_NF = sae.encode(DATA)
        parts = (f_NF[:, :end] @ sae.W_dec[:end] + sae.b_dec for end in (12, 48))
        explained[objective] = [
            1 - float((DATA - y).square().sum() / (DATA - DATA.mean(0)).square().sum()) for y in parts
        ]
    assert explained["matryoshka"][0] > explained[""][0] + 0.15
    assert explained["matryoshka"][1] > explained[""][1] - 0.15


# --- a user's own ---


def doubled(run: Pass, weight: float) -> Tensor:
    return 2 * run.error + run.own


def test_a_loss_that_is_handed_in(tmp_path: Path) -> None:
    seen: list[float] = []

    def mine(run: Pass, weight: float) -> Tensor:
        seen.append(weight)
        return plain(run, weight) + 30 * run.l1

    few = train_sae(DATA, replace(CONFIG, sparsity=0.7), tmp_path, objective=mine, progress=False, device="cpu")
    assert seen == [0.7] * 40
    usual = train_sae(DATA, CONFIG, progress=False, device="cpu")
    by_config = train_sae(DATA, replace(CONFIG, objective=mine), progress=False, device="cpu")
    assert few.encode(DATA).sum() < 0.95 * usual.encode(DATA).sum()
    assert torch.equal(few.W_enc, by_config.W_enc)
    name = "test_a_loss_that_is_handed_in.<locals>.mine"
    assert few.info.extra["training"]["objective"] == name
    # a checkpoint knows the objective by its name
    again = train_sae(DATA, replace(CONFIG, sparsity=0.7), tmp_path, objective=mine, progress=False, device="cpu")
    assert torch.equal(again.W_enc, few.W_enc) and len(seen) == 80
    with pytest.raises(TrainingError, match="another training"):
        train_sae(DATA, replace(CONFIG, sparsity=0.7), tmp_path, objective=doubled, progress=False, device="cpu")


def test_names_in_files() -> None:
    assert name_of("l1") == "l1"
    assert name_of(doubled) == "doubled"
    assert name_of(Matryoshka((0.25,))) == "Matryoshka(shares=(0.25,))"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda run, weight: run.x_ND, "one number"),
        (lambda run, weight: run.error.detach(), "no gradient"),
        (lambda run, weight: 1.0, "one number"),
    ],
)
def test_losses_that_cannot_be(bad: Objective, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        train_sae(DATA, CONFIG, objective=bad, progress=False, device="cpu")


def test_names_and_shares_that_cannot_be() -> None:
    with pytest.raises(TrainingError, match="unknown objective 'l3'; there are plain, l1, l0, matryoshka"):
        train_sae(DATA, CONFIG, objective="l3", progress=False, device="cpu")
    for shares in ((), (0.5, 0.25), (0.5, 0.5), (0.0, 0.5), (0.5, 1.0), (-0.1,)):
        with pytest.raises(TrainingError, match="shares"):
            Matryoshka(shares)


def test_checkpoints_from_before_there_were_objectives(tmp_path: Path) -> None:
    whole = train_sae(DATA, CONFIG, tmp_path / "whole", progress=False, device="cpu")
    train_sae(DATA, CONFIG, tmp_path / "old", progress=False, device="cpu", checkpoint_every=20)
    state = torch.load(tmp_path / "old" / STATE, weights_only=True)
    for config in state["key"]["configs"]:
        assert config.pop("objective") == ""
    torch.save(state, tmp_path / "old" / STATE)
    went_on = train_sae(DATA, CONFIG, tmp_path / "old", progress=False, device="cpu")
    assert torch.equal(went_on.W_enc, whole.W_enc)

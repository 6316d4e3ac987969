"""Attributions against ablations: exact behind a site where the model is linear, close where it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks import Site, SiteError
from hooks.model import AudioModel
from steer import SAE, Ablate, EditError, SteeredModel
from steer.attribution import attribute

MakeSAE = Callable[..., SAE]
X = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(5))


class Layers(nn.Module):
    """Two linear layers, with tanh between where asked; the output of the first is the site."""

    def __init__(self, bent: bool) -> None:
        super().__init__()
        self.first, self.middle = nn.Linear(12, 12), nn.Tanh() if bent else nn.Identity()
        self.last = nn.Linear(12, 5)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x_BTD)))


def model(bent: bool = False) -> AudioModel:
    torch.manual_seed(1)
    sites = [Site("first", "first", width=12), Site("middle", "middle", width=12), Site("last", "last", width=5)]
    return AudioModel(Layers(bent), sites, name="layers")


def score_of(steered: SteeredModel) -> Callable[[], Tensor]:
    return lambda: steered(X)[..., 2].sum()


def drop_of(steered: SteeredModel, *features: int) -> float:
    """By how much the score falls without these features."""
    score = score_of(steered)
    with torch.no_grad():
        before = score()
        with steered.edit(Ablate(list(features)), site="first"):
            return float(before - score())


@pytest.mark.parametrize("activation", ["relu", "topk", "jumprelu", "batchtopk", "gated"])
@pytest.mark.parametrize("normalize", [None, "layer_norm"])
def test_where_the_rest_is_linear_it_is_what_ablation_does(
    random_sae: MakeSAE, activation: str, normalize: str | None
) -> None:
    options = {"normalize": normalize} if normalize else {}
    steered = SteeredModel(model(), random_sae(activation, **options), "first")
    found = attribute(steered, score_of(steered))["first"]
    assert found.shape == (2, 7, 40)
    each_F = found.sum((0, 1))
    strongest = each_F.abs().argsort(descending=True)[:6].tolist()
    assert each_F[strongest[0]].abs() > 0.1
    for feature in strongest:
        assert float(each_F[feature]) == pytest.approx(drop_of(steered, feature), rel=1e-3, abs=1e-4)
    assert float(each_F[strongest].sum()) == pytest.approx(drop_of(steered, *strongest), rel=1e-3, abs=1e-4)
    # a feature that is silent carries nothing
    f_BTF = steered.saes["first"].encode(steered.model.module.first(X))
    assert not found[f_BTF == 0].any()


def test_elsewhere_it_ranks_as_ablation_does(random_sae: MakeSAE) -> None:
    sae = random_sae("relu")
    with torch.no_grad():
        sae.W_dec.mul_(0.3)  # each feature is a small part of the activation
    steered = SteeredModel(model(bent=True), sae, "first")
    each_F = attribute(steered, score_of(steered))["first"].sum((0, 1))
    drops_F = torch.tensor([drop_of(steered, feature) for feature in range(40)])
    assert torch.corrcoef(torch.stack([each_F, drops_F]))[0, 1] > 0.95
    assert not torch.allclose(each_F, drops_F, rtol=1e-3)  # it is no ablation


def test_the_output_is_the_models_own_and_nothing_is_left(random_sae: MakeSAE) -> None:
    steered = SteeredModel(model(bent=True), {"first": random_sae("relu"), "middle": random_sae("topk")})
    plain, outputs = steered(X), []

    def score() -> Tensor:
        outputs.append(steered(X))
        return outputs[-1].square().mean()

    found = attribute(steered, score)
    assert list(found) == ["first", "middle"]
    assert torch.equal(outputs[0], plain)
    assert all(parameter.grad is None for parameter in steered.model.module.parameters())
    assert not any(module._forward_hooks for module in steered.model.module.modules())
    assert not any(value.requires_grad for value in found.values())
    # of one site, and of both as if each were alone: a later SAE does not stand in the way
    assert torch.equal(attribute(steered, score, "first")["first"], found["first"])


def test_run_and_features_keep_gradients_in_a_score(random_sae: MakeSAE) -> None:
    steered = SteeredModel(model(), {"first": random_sae("relu"), "middle": random_sae("relu", d_sae=24)})
    called = attribute(steered, score_of(steered), "first")["first"]
    assert torch.equal(attribute(steered, lambda: steered.run(X)[..., 2].sum(), "first")["first"], called)
    steered.model.sample_rate = 8000
    steered.model.prepare = lambda source: X  # type: ignore[method-assign]
    one_of_later = attribute(steered, lambda: steered.features("")["middle"][..., 3].sum(), "first")["first"]
    assert one_of_later.any()


def test_edits_are_in_it_and_passes_lie_one_behind_the_other(random_sae: MakeSAE) -> None:
    steered = SteeredModel(model(), random_sae("relu"), "first")
    plain = attribute(steered, score_of(steered))["first"]
    feature = int(plain.abs().sum((0, 1)).argmax())
    with steered.edit(Ablate([feature])):
        edited = attribute(steered, score_of(steered))["first"]
    sae = steered.saes["first"]
    with torch.no_grad():
        x_BTD = steered.model.module.first(X)
        left_BTD = x_BTD - sae.encode(x_BTD)[..., feature, None] * sae.W_dec[feature]  # type: ignore[attr-defined]
        active_BTF = sae.encode(left_BTD) > 0
    assert torch.equal(edited != 0, active_BTF)
    assert not torch.equal(plain != 0, active_BTF)
    twice = attribute(steered, lambda: steered(X[:, :3])[..., 2].sum() + steered(X[:, 3:])[..., 2].sum())["first"]
    torch.testing.assert_close(twice, plain)


def test_what_cannot_be_attributed(random_sae: MakeSAE) -> None:
    steered = SteeredModel(model(), random_sae("relu"), "first")
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: steered(X), EditError, r"one number.*not \[2, 7, 5\]"),
        (lambda: 3.0, EditError, "one number.*not float"),
        (lambda: steered(X).detach().sum(), EditError, "no gradient"),
        (lambda: torch.zeros(1, requires_grad=True), SiteError, "'first' was not passed"),
    ]
    for score, kind, message in cases:
        with pytest.raises(kind, match=message):
            attribute(steered, score)
    with pytest.raises(SiteError, match="no SAE at 'middle'; there are SAEs at first"):
        attribute(steered, score_of(steered), ["middle"])

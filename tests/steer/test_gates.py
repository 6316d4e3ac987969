from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from steer import Ablate, EditError, Gate, GateProbe, Scale
from steer.delta import site_edit, steps_of
from steer.probes import Probe, named_bins
from steer.sae import SAE

PROBE = GateProbe(torch.tensor([[1.0, -2.0], [0.5, 0.0]]), 0.25, [7, 3], ("mean", "max"), "encoder.1", "whisper:tiny")
F_ETJ = torch.tensor([[[1.0, 0.0], [3.0, 1.0]]])


def test_a_logit_by_hand() -> None:
    assert PROBE.logit(F_ETJ) == 1.0 * 2.0 - 2.0 * 0.5 + 0.5 * 3.0 + 0.25
    assert PROBE.logits(F_ETJ, 1).tolist() == [1.0 + 0.5 + 0.25, 3.0 - 2.0 + 1.5 + 0.25]
    # a lone mean is a product first: the same numbers
    mean = GateProbe(torch.tensor([1.0, -2.0]), 0.25, [7, 3])
    assert mean.weights.shape == (1, 2)
    assert mean.logits(F_ETJ, 3).tolist() == [mean.logit(F_ETJ)] * 2


def test_the_other_way_round() -> None:
    gate = Gate(PROBE, 0.5)
    assert (~gate).probe.logit(F_ETJ) == -PROBE.logit(F_ETJ) and (~gate).threshold == -0.5
    assert ~~gate == gate and ~gate != gate


def test_gates_are_equal_by_value() -> None:
    same = GateProbe(PROBE.weights.clone(), 0.25, (7, 3), ["mean", "max"], "encoder.1", "whisper:tiny")
    assert Gate(PROBE, 1, 2) == Gate(same, 1.0, 2.0) and hash(Gate(PROBE)) == hash(Gate(same))
    assert Gate(PROBE, 1) != Gate(PROBE, 2) and Gate(PROBE, scope="clip") != Gate(PROBE, scope="window")
    edit = Ablate([3], when=Gate(PROBE))
    assert edit == Ablate([3], when=Gate(same)) and edit != Ablate([3])
    assert edit.conditional(None) == Ablate([3]) and edit.when == Gate(PROBE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": torch.zeros(3, 2)}, r"weights are \[2, features\] for mean, max, not \[3, 2\]"),
        ({"weights": torch.zeros(2, 0), "features": []}, "weights are"),
        ({"weights": torch.full((2, 2), torch.nan)}, "have to be finite"),
        ({"bias": float("inf")}, "have to be finite"),
        ({"features": [1]}, "features are different ids"),
        ({"features": [1, 1]}, "features are different ids"),
        ({"features": [-1, 1]}, "features are different ids"),
        ({"pooling": ("mean", "median")}, "pooling is of mean, max, log_mean, log_max, not .*median"),
        ({"pooling": ()}, "pooling is of"),
        ({"features": None, "pooling": ("mean", "log_max")}, "have no logarithm"),
    ],
)
def test_probes_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    values = {"weights": PROBE.weights, "bias": 0.0, "features": [7, 3], "pooling": ("mean", "max")}
    with pytest.raises(EditError, match=message):
        GateProbe(**(values | change))


@pytest.mark.parametrize("scope", ["clips", 0, -1.0, float("inf"), float("nan"), None, True])
def test_scopes_that_make_no_sense(scope: Any) -> None:
    with pytest.raises(EditError, match="scope is clip, window or a number of seconds above 0"):
        Gate(PROBE, scope=scope)


def test_other_arguments_that_make_no_sense() -> None:
    with pytest.raises(EditError, match="threshold has to be finite"):
        Gate(PROBE, float("nan"))
    with pytest.raises(EditError, match="takes a GateProbe"):
        Gate(torch.ones(3))  # type: ignore[arg-type]
    with pytest.raises(EditError, match="when takes a Gate, not a GateProbe"):
        Ablate([1], when=PROBE)  # type: ignore[arg-type]


def test_the_frames_of_seconds_are_an_odd_number() -> None:
    assert [Gate(PROBE, scope=scope).frames(50.0) for scope in (0.001, 0.02, 0.1, 1.0)] == [1, 1, 5, 51]


def test_a_probe_of_two_classes_is_a_read_out() -> None:
    bins = named_bins("speech", ["no", "yes"])
    weights, bias = torch.tensor([[1.0, 2.0], [3.0, -1.0]]), torch.tensor([0.5, 1.0])
    probe = Probe(bins, weights, bias, torch.tensor([5, 5]), "encoder.0")
    x_ETF = torch.rand(1, 4, 2)
    no_yes = probe.logits(x_ETF.mean((0, 1)))
    for class_, sign in ((1, 1.0), (0, -1.0)):
        gate = GateProbe.of(probe, class_, [0, 1])
        assert gate.logit(x_ETF) == pytest.approx(sign * float(no_yes[1] - no_yes[0]), abs=1e-6)
        assert gate.site == "encoder.0"
    many = Probe(named_bins("speech", ["a", "b", "c"]), torch.zeros(3, 2), torch.zeros(3), torch.ones(3))
    with pytest.raises(EditError, match="two classes, this one has 3"):
        GateProbe.of(many, 0)


@pytest.mark.parametrize("scope", ["clip", "window", 1.5])
@pytest.mark.parametrize("probe", [PROBE, GateProbe(torch.randn(5), 1 / 3, site="latent")])
def test_a_file_says_the_same(probe: GateProbe, scope: Any, tmp_path: Path) -> None:
    gate = Gate(probe, 1 / 3, scope)
    assert Gate.load(gate.save(tmp_path / "gate.safetensors")) == gate


def test_files_that_are_no_gates(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    with pytest.raises(EditError, match=r"g\.safetensors: no such file"):
        Gate.load(path)
    with pytest.raises(EditError, match="could not be written"):
        Gate(PROBE).save(tmp_path / "no" / "g.safetensors")
    path.write_bytes(b"no gate")
    with pytest.raises(EditError, match="not a gate that can be opened"):
        Gate.load(path)
    tensors = {"weights": torch.ones(1, 2), "bias": torch.tensor(0.0), "features": torch.tensor([1, 2])}
    about: dict[str, Any] = {"pooling": ["mean"], "site": "a", "model": "m", "threshold": 0.0, "scope": "clip"}
    bad: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"pooling": "mean"}),
        ({}, {"pooling": [3]}),
        ({}, {"site": 3}),
        ({}, {"scope": "clips"}),
        ({}, {"scope": {}}),
        ({}, {"threshold": "x"}),
        ({}, {"threshold": None}),
        ({"features": torch.tensor([1.0, 2.0])}, {}),
        ({"features": torch.tensor([[1, 2]])}, {}),
        ({"features": torch.tensor([1, 2, 3])}, {}),
        ({"bias": torch.tensor([0.0, 1.0])}, {}),
        ({"weights": torch.full((1, 2), torch.inf)}, {}),
    ]
    for changed, said in bad:
        save_file(tensors | changed, path, {"gate": json.dumps(about | said)})
        with pytest.raises(EditError) as caught:
            Gate.load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value), (changed, said)
    save_file(tensors, path)
    with pytest.raises(EditError, match="not a gate"):
        Gate.load(path)


def test_only_a_model_can_ask_a_gate() -> None:
    sae = SAE(4, 8, "relu")
    for make in (site_edit, steps_of):
        with pytest.raises(EditError, match=r"made by SteeredModel\.edit or apply"):
            make(sae, [Ablate([1]), Scale([2], 2.0, when=Gate(PROBE))])

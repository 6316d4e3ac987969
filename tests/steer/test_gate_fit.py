"""Gates fitted on sounds: what is found, and where the threshold is put."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import AudioModel, Clip, Site
from steer import SAE, EditError, Gate, GateProbe, SteeredModel, fit_gate, gate_logits, pool_sounds
from steer.gate_fit import Pooled, threshold_for
from steer.probes import fit_probe, named_bins

pytest.importorskip("sklearn", reason="extra eval")

WIDTH = 30


def pooled(count: int, seed: int = 0, on: str = "features") -> tuple[Pooled, Tensor]:
    """Examples whose label is told by features 4 and 11 together; the rest is noise."""
    generator = torch.Generator().manual_seed(seed)
    labels_N = torch.rand(count, generator=generator) < 0.3
    values = torch.rand(count, 2, WIDTH, generator=generator)
    for feature in (4, 11):
        values[:, :, feature] += 0.5 * labels_N[:, None]
    return Pooled(values, torch.arange(count), ("mean", "max"), "encoder.1", "tiny", on, "clip"), labels_N


@pytest.mark.parametrize("k", [None, 1, 3, 10])
def test_labels_are_found(k: int | None) -> None:
    (examples, labels_N), (others, truth_N) = pooled(300), pooled(200, seed=1)
    gate = fit_gate(examples, labels_N, k)
    assert (gate.site, gate.scope, gate.threshold, gate.probe.model) == ("encoder.1", "clip", 0.0, "tiny")
    features = list(gate.probe.features or ())
    assert len(features) == (k or WIDTH) and features == sorted(features)
    if k == 1:
        assert features[0] in (4, 11)
    elif k:
        assert {4, 11} <= set(features)
    right = ((others.logits(gate.probe) > 0) == truth_N).double().mean()
    # a single one of the two, uniform noise of width 1 with a step of 0.5 in either pooling, is right less often
    assert right > (0.7 if k == 1 else 0.85)


def test_both_labels_count_alike() -> None:
    """By chance alone, what is known of no example is as likely as not, however rare its label."""
    values = torch.rand(400, 1, 1)
    labels_N = torch.arange(400) < 40
    gate = fit_gate(Pooled(values, torch.arange(400), ("mean",)), labels_N)
    # where nothing is to be learned, a fit of unbalanced labels is at log(1 / 9) = -2.2
    assert abs(gate.probe.logit(values.mean(0, keepdim=True))) < 0.3


def test_a_gate_on_the_activation() -> None:
    examples, labels_N = pooled(200, on="activation")
    gate = fit_gate(examples, labels_N)
    assert gate.probe.features is None and gate.probe.weights.shape == (2, WIDTH)
    with pytest.raises(EditError, match="reads features, not the activation"):
        fit_gate(examples, labels_N, 3)


def test_the_threshold_is_chosen_on_held_out_sounds() -> None:
    (examples, labels_N), held_out = pooled(300), pooled(500, seed=1)
    others, truth_N = held_out
    for wrong in (0.0, 0.01, 0.1):
        gate = fit_gate(examples, labels_N, held_out=held_out, wrong=wrong)
        open_N = others.logits(gate.probe) > gate.threshold
        share = float(open_N[~truth_N].double().mean())
        assert share <= wrong
        # the next lower threshold would let one more through
        lower = others.logits(gate.probe)[~open_N].max()
        assert not truth_N[others.logits(gate.probe) == lower].any()
        assert share + 1 / float((~truth_N).sum()) > wrong


@pytest.mark.parametrize(
    ("logits", "false", "wrong", "expected"),
    [
        ([1.0, 2.0, 5.0, 7.0], [True, True, False, False], 0.0, 3.5),
        ([1.0, 6.0, 5.0, 7.0], [True, True, False, False], 0.0, 6.5),
        ([1.0, 6.0, 5.0, 7.0], [True, True, False, False], 0.5, 3.0),
        ([1.0, 2.0], [True, True], 0.0, 2.0),
        ([1.0, 2.0], [True, True], 0.49, 2.0),
        ([3.0, 1.0, 2.0], [True, True, True], 0.34, 2.5),
    ],
)
def test_thresholds_by_hand(logits: list[float], false: list[bool], wrong: float, expected: float) -> None:
    assert threshold_for(torch.tensor(logits), torch.tensor(false), wrong) == expected


def test_what_makes_no_sense() -> None:
    examples, labels_N = pooled(50)
    with pytest.raises(EditError, match="sounds of both labels"):
        fit_gate(examples, torch.ones(50))
    with pytest.raises(EditError, match=r"50 sounds have a label each, not \[49\]"):
        fit_gate(examples, labels_N[:49])
    for k in (0, WIDTH + 1):
        with pytest.raises(EditError, match=f"1 to {WIDTH} features, not {k}"):
            fit_gate(examples, labels_N, k)
    with pytest.raises(EditError, match="held-out sounds whose label is false"):
        fit_gate(examples, labels_N, held_out=(examples, torch.ones(50)))
    with pytest.raises(EditError, match="share of wrong decisions"):
        fit_gate(examples, labels_N, held_out=(examples, labels_N), wrong=1.0)


def test_balanced_classes() -> None:
    f_NF = torch.zeros(100, 1)
    f_NF[::2] = 1e-3
    values_N = (torch.arange(100) < 10).double()
    bins = named_bins("x", ["a", "b"])
    for balanced, expected in ((False, -2.197), (True, 0.0)):  # log(10 / 90)
        probe = fit_probe(f_NF, values_N, bins, balanced=balanced)
        logit = probe.logits(f_NF.mean(0))
        assert float(logit[1] - logit[0]) == pytest.approx(expected, abs=0.01)


# --- from sounds ---


class Frames(torch.nn.Module):
    """100 frames a second, 4 wide: the mean of their samples, and of its parts above and below zero."""

    def __init__(self) -> None:
        super().__init__()
        self.site = torch.nn.Identity()

    def forward(self, audio_BCN: Tensor) -> Tensor:
        mean_BT = audio_BCN[:, 0].unfold(1, 10, 10).mean(-1)
        return self.site(torch.stack([mean_BT, mean_BT.relu(), (-mean_BT).relu(), mean_BT.square()], dim=-1))


def model(chunk_s: float | None = None) -> AudioModel:
    site = Site("site", "site", width=4, frame_rate=100.0, chunk_s=chunk_s)
    return AudioModel(Frames(), [site], name="frames", sample_rate=1000)


def same(width: int) -> SAE:
    """Feature i is the positive part of coordinate i."""
    sae = SAE(width, width, "relu").requires_grad_(False)
    sae.W_enc.copy_(torch.eye(width))
    sae.W_dec.copy_(torch.eye(width))
    return sae


@pytest.fixture
def steered() -> SteeredModel:
    return SteeredModel(model(), same(4), "site", check=False)


def sounds(count: int, seed: int = 0) -> tuple[list[Clip], list[bool]]:
    """Half a second of noise above or below zero, where a label is true."""
    generator = torch.Generator().manual_seed(seed)
    labels = [bool(n % 3 == 0) for n in range(count)]
    return [
        Clip(torch.randn(1, 500, generator=generator) * 0.2 + (-0.1 if label else 0.1), 1000) for label in labels
    ], labels


def test_what_is_pooled_is_what_a_gate_sees(steered: SteeredModel) -> None:
    clips, labels = sounds(30)
    for on, scope in (("features", "clip"), ("activation", "clip"), ("features", "window")):
        examples = pool_sounds(steered, clips, on=on, scope=scope)  # type: ignore[arg-type]
        gate = fit_gate(examples, labels)
        found = torch.cat([gate_logits(steered, gate, clip) for clip in clips])
        torch.testing.assert_close(found, examples.logits(gate.probe), atol=1e-4, rtol=1e-4)
        assert ((found > 0) == torch.tensor(labels)).all()


def test_a_fitted_gate_edits_what_it_was_fitted_for(steered: SteeredModel) -> None:
    from steer import Scale

    (clips, labels), (others, truth) = sounds(30), sounds(12, seed=1)
    gate = fit_gate(pool_sounds(steered, clips), labels, 1)
    assert gate.probe.features in ((1,), (2,), (0,))
    for clip, label in zip(others, truth, strict=True):
        plain = steered.run(steered.prepare(clip))
        with steered.edit(Scale([1, 2], 3.0), when=gate):
            assert torch.equal(steered.run(steered.prepare(clip)), plain) != label


def test_scopes_cut_sounds_into_examples(steered: SteeredModel) -> None:
    clip = Clip(torch.linspace(-1, 1, 1140)[None], 1000)
    seconds = pool_sounds(steered, [clip, clip], on="activation", scope=0.5)
    # 114 frames: 50, and 64, since 14 are less than half
    assert seconds.sounds.tolist() == [0, 0, 1, 1] and seconds.scope == 0.5
    x_TD = steered.model.run(steered.model.prepare(clip))[0]
    torch.testing.assert_close(seconds.values[:2, 0], torch.stack([x_TD[:50].mean(0), x_TD[50:].mean(0)]))
    assert seconds.labels([True, False]).tolist() == [True, True, False, False]
    windows = SteeredModel(model(chunk_s=0.3), same(4), "site", check=False)
    assert len(pool_sounds(windows, [clip], scope="window").values) == 4
    assert len(pool_sounds(windows, [clip], scope="clip").values) == 1
    gate = Gate(GateProbe(torch.eye(4)[0], site="site"), scope="window")
    assert len(gate_logits(windows, gate, clip)) == 4
    assert len(gate_logits(windows, Gate(gate.probe, 0.0, 0.1), clip)) == 114


def test_what_cannot_be_pooled(steered: SteeredModel) -> None:
    def refused(message: str, *args: Any, **kwargs: Any) -> None:
        with pytest.raises(EditError, match=message):
            pool_sounds(*args, **kwargs)

    refused("there are none", steered, [])
    refused("on features or on the activation, not on 'words'", steered, [], on="words")
    refused("there is no SAE at 'site'", SteeredModel(steered.model), [], "site")

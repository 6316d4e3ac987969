"""Concept removal on a model where it is known which features carry what."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evaluation.ablation import ConceptError, Pool, ablated_runs, later_site, plain_run
from evaluation.concepts import concepts_of, contribution, fisher_score, log_counts
from evaluation.dataset import LabelledSound
from evaluation.removal import Rank, draw, evaluate
from hooks import Clip, Site
from hooks.model import AudioModel
from hooks.timing import sound_until
from steer import SAE, SAEInfo, SteeredModel
from steer.edits import Ablate

pytest.importorskip("sklearn", reason="extra eval")

WIDTH, FRAMES, RATE = 24, 4, 4000
BARK, VOWEL = (3, 11, 17), (5, 20)
"""Features that carry a concept, each of them all of it."""


class Ear(nn.Module):
    """Samples are activations, WIDTH a frame: `first` passes them on, `second` mixes them, `third` looks away."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Identity(), nn.Linear(WIDTH, 32), nn.Linear(32, 3)

    def forward(self, audio_BCN: Tensor) -> Tensor:
        x_BTD = self.first(audio_BCN[:, 0].unflatten(1, (-1, WIDTH)))
        return self.third(torch.tanh(self.second(x_BTD)))


@pytest.fixture(scope="module")
def basis() -> Tensor:
    """Orthonormal rows: the features' directions."""
    return torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(3)))[0]


@pytest.fixture
def steered(basis: Tensor) -> SteeredModel:
    """The SAE finds the features exactly: relu, untied from any bias, orthonormal."""
    module = Ear()
    sites = [Site.of(module, "first", "encoder.0", width=WIDTH), Site.of(module, "second", "encoder.1")]
    model = AudioModel(module, [*sites, Site.of(module, "third", "decoder.0")], name="ear", sample_rate=RATE)
    sae = SAE(WIDTH, WIDTH, "relu", info=SAEInfo(model="ear", site="encoder.0"))
    with torch.no_grad():
        sae.W_dec.copy_(basis)
        sae.W_enc.copy_(basis.T)
    return SteeredModel(model, sae, check=False)  # the proof's second of noise is not a whole number of frames


Make = Callable[..., list[LabelledSound]]


@pytest.fixture
def sounds(basis: Tensor) -> Make:
    """Clips whose features are noise, and 3 more where they carry a label of the clip."""

    def make(count: int, seed: int) -> list[LabelledSound]:
        generator = torch.Generator().manual_seed(seed)
        made = []
        for index in range(count):
            f_TF = torch.rand(FRAMES, WIDTH, generator=generator)
            bark, vowel = index % 3 == 0, index % 4 < 2
            f_TF[:, list(BARK)] += 3 * bark
            f_TF[:, list(VOWEL)] += 3 * vowel
            labels = {"sound": "bark" if bark else ("rain", "wind")[index % 2], "vowel": "a" if vowel else "o"}
            made.append(LabelledSound(Clip((f_TF @ basis).flatten()[None], RATE), str(index), labels))
        return made

    return make


def test_what_is_needed_is_what_carries_the_concept(steered: SteeredModel, sounds: Make, tmp_path: Path) -> None:
    before = [value.clone() for value in steered.model.module.state_dict().values()]
    counts = [1, 2, 3, 8, 16, 20, 24]
    report = evaluate(steered, sounds(48, 0), sounds(60, 1), ["sound=bark", "vowel"], counts=counts, draws=3)
    bark, vowel, mean = report.rows
    assert (bark["concept"], vowel["concept"], mean["concept"]) == ("sound=bark", "vowel=a", "mean of 2")
    assert sorted(report.about["enough"]["sound=bark"]) == list(BARK)
    assert sorted(report.about["enough"]["vowel=a"]) == list(VOWEL)
    assert (bark["needed"].value, vowel["needed"].value) == (3 / 24, 2 / 24)
    assert mean["needed"].value == pytest.approx(2.5 / 24)
    # up to then all of it is still there
    assert [point["accuracy"] for point in report.clips[:3]] == [1.0, 1.0, 1.0]
    # all three features have to be among the random ones: 19 of 24 in the mean of all orders
    assert bark["random"].value > 4 * bark["needed"].value
    assert bark["random area"].value > bark["area"].value + 0.1
    # the other concept lies on other features
    assert report.about["kept"]["sound=bark"]["vowel=a"] == 1.0
    assert vowel["others keep"].value > 0.9
    # nothing of it can be read: the probe says nothing but "no"
    assert bark["left"].value == pytest.approx(0, abs=0.15)
    assert bark["left"].low <= bark["left"].value <= bark["left"].high < 0.6
    assert (mean["left"].value, mean["left"].count) == (
        pytest.approx((bark["left"].value + vowel["left"].value) / 2),
        2,
    )
    # 60 clips that are all told right without an edit
    assert bark["probe"].value == 1.0
    assert 0.85 < bark["probe"].low < 0.99
    assert report.about["read at"] == "encoder.1"
    assert report.about["explained variance"] == pytest.approx(1, abs=1e-6)
    assert json.loads(report.save(tmp_path / "ablation.json").read_text())["rows"][0]["needed"]["reached"] is True
    # the user's modules are as they were
    assert all(torch.equal(a, b) for a, b in zip(before, steered.model.module.state_dict().values(), strict=True))
    assert not any(module._forward_hooks for module in steered.model.module.modules())


def test_a_concept_outside_the_sae_is_not_reached(steered: SteeredModel, sounds: Make) -> None:
    sae = steered.saes["encoder.0"]
    assert isinstance(sae, SAE)
    with torch.no_grad():  # blind for one of the three
        sae.W_enc[:, BARK[0]] = 0
    report = evaluate(steered, sounds(48, 0), sounds(48, 1), ["sound=bark"], points=4, draws=1, mode="delta")
    (row,) = report.rows
    assert report.about["enough"]["sound=bark"] == []
    assert str(row["needed"]) == str(row["random"]) == "not reached"
    assert row["needed"].value == 1.0
    assert row["others keep"] is row["left"] is None
    assert report.about["features that fire"] == WIDTH - 1
    assert "not reached" in report.markdown()


def test_what_cannot_be_read_needs_nothing(steered: SteeredModel, sounds: Make) -> None:
    # of no consequence for the sound
    train, held_out = (
        [LabelledSound(s.source, s.name, {**s.labels, "day": "ab"[i * 7 % 5 % 2]}) for i, s in enumerate(some)]
        for some in (sounds(60, 0), sounds(60, 1))
    )
    report = evaluate(steered, train, held_out, ["day", "vowel"], counts=[2, 24], draws=0)
    day, vowel, mean = report.rows
    assert day["needed"] is None
    assert day["probe"].value <= day["chance"]
    assert mean["needed"].value == vowel["needed"].value
    assert mean["concept"] == "mean of 1"
    assert vowel["random"] is None
    assert "day=a" not in report.about["kept"]["vowel=a"]


def test_what_others_keep_has_chance_taken_off(steered: SteeredModel, sounds: Make) -> None:
    """All features go: other concepts are at chance, which is half of their accuracy, and keep nothing."""
    report = evaluate(steered, sounds(48, 0), sounds(60, 1), ["sound=bark"], counts=[WIDTH], draws=0)
    (row,) = report.rows
    assert "vowel=a" in report.about["kept"]["sound=bark"]
    assert row["others keep"].value == pytest.approx(0, abs=0.1)
    assert report.about["kept"]["sound=bark"]["vowel=a"] == pytest.approx(0, abs=0.2)
    assert row["others keep"].low < 0.05 < row["others keep"].high < 0.5


def test_runs_are_edits_of_the_running_model(steered: SteeredModel, sounds: Make) -> None:
    (sound, *_) = sounds(3, 0)
    later = steered.model.site("encoder.1")
    _, plain_ND, _ = plain_run(steered, "encoder.0", later, [sound], iter)
    order = np.array([3, 5, 0])
    (run_KND,) = ablated_runs(steered, "encoder.0", later, [sound], [order], [1, 3], iter, "delta")
    audio_BCN = steered.model.prepare(sound.source)
    with torch.no_grad():
        x_BTD = audio_BCN[:, 0].unflatten(1, (-1, WIDTH))
        for k, count in enumerate((1, 3)):
            with steered.edit(Ablate(order[:count].tolist())):
                expected = steered.model.module.second(steered.model.module.first(x_BTD)).mean((0, 1))
            # float32 means over 4 frames
            assert run_KND[k, 0] == pytest.approx(expected.numpy(), abs=1e-5)
        assert plain_ND[0] == pytest.approx(steered.model.module.second(x_BTD).mean((0, 1)).numpy(), abs=1e-5)
    assert not np.allclose(run_KND[0], run_KND[1])


def test_padding_does_not_count() -> None:
    pool = Pool(Site("s", "", frame_rate=10.0))
    x_BTD = torch.arange(10.0)[None, :, None]
    with sound_until(0.4):
        pool(x_BTD)
    assert pool.take() == pytest.approx([1.5])
    pool(x_BTD[:, :5])
    pool(x_BTD[:, 5:])
    assert pool.take() == pytest.approx([4.5])  # several passes are one mean


def test_fisher_score_ranks_what_separates() -> None:
    is_N = np.array([True, True, False, False])
    f_NF = np.array([[1, 5, 0, 1], [1, 7, 0, 3], [0, 1, 0, 1], [0, 3, 0, 3]], dtype=float)
    score_F = fisher_score(f_NF, is_N)
    # means 6 and 2 around 4: 4 * 2² over 4 * 1²
    assert score_F[1:].tolist() == pytest.approx([4.0, 0.0, 0.0])
    assert score_F.argmax() == 0  # no spread at all
    assert np.isfinite(score_F).all()


def test_contribution_ranks_what_moves_the_mean() -> None:
    is_N = np.array([True, True, False, False])
    f_NF = np.array([[1, 5, 0, 1], [1, 7, 0, 3], [0, 1, 0, 4], [0, 3, 0, 6]], dtype=float)
    # means 1 and 0, 6 and 2, both 0, 2 and 5
    assert contribution(f_NF, is_N, np.array([0.5, 2.0, 7.0, 1.0])).tolist() == [0.5, 8.0, 0.0, 3.0]


def test_the_ranking_is_chosen(steered: SteeredModel, sounds: Make, basis: Tensor) -> None:
    def told(some: list[LabelledSound]) -> list[LabelledSound]:
        """One feature tells perfectly, without any spread, and is nearly nothing."""
        quiet = []
        for one in some:
            f_TF = one.source.waveform.unflatten(1, (-1, WIDTH))[0] @ basis.T  # type: ignore[union-attr]
            f_TF[:, 0] = 1e-3 * (one.labels["sound"] == "bark")
            quiet.append(LabelledSound(Clip((f_TF @ basis).flatten()[None], RATE), one.name, one.labels))
        return quiet

    enough: dict[Rank, list[int]] = {}
    for rank in get_args(Rank):
        report = evaluate(
            steered, told(sounds(48, 0)), told(sounds(48, 1)), ["sound=bark"], counts=[3, 4], draws=0, rank=rank
        )
        enough[rank] = report.about["enough"]["sound=bark"]
        assert report.about["ranked by"] == rank
    assert sorted(enough["contribution"]) == list(BARK)
    assert sorted(enough["fisher"]) == [0, *BARK]


def test_counts_reach_from_one_per_cent_to_all() -> None:
    assert log_counts(1000, 3) == [10, 100, 1000]
    assert log_counts(49, 3) == [1, 7, 49]
    assert log_counts(5, 12) == [1, 2, 3, 4, 5]


def test_one_concept_of_a_pair_and_unknown_kinds_are_left_out() -> None:
    train = [LabelledSound("", "", labels) for labels in ({"v": "a"}, {"v": "o", "s": "x"}, {"s": "y"}, {"s": "z"})]
    known = concepts_of(train[:3], train[3:])
    assert {name: y_N.tolist() for name, y_N in known.items()} == {
        "v=a": [1, 0, -1, -1],
        "s=x": [-1, 1, 0, 0],
        "s=y": [-1, 0, 1, 0],  # z is in no clip to train on
    }


def test_errors_say_what_is_wrong(steered: SteeredModel, sounds: Make, basis: Tensor) -> None:
    train, held_out = sounds(24, 0), sounds(24, 1)
    with pytest.raises(ConceptError, match="no concept 'sound=cat'.*sound=bark"):
        evaluate(steered, train, held_out, ["sound=cat"])
    rare = LabelledSound(train[0].source, "rare", {"sound": "cat"})
    with pytest.raises(ConceptError, match="sound=cat: 1 clip with it to train on, and it takes 2"):
        evaluate(steered, [rare, *train], [rare, rare, *held_out])
    with pytest.raises(ConceptError, match="sound=bark: 0 clips with it to test on"):
        evaluate(steered, train, [one for one in held_out if one.labels["sound"] != "bark"], ["sound"])
    with pytest.raises(ConceptError, match="no clip to train on has a label"):
        evaluate(steered, [], held_out)
    with pytest.raises(ConceptError, match="from 1 to the 24 that fire"):
        evaluate(steered, train, held_out, counts=[0, 3])
    with pytest.raises(ConceptError, match="no SAE at 'encoder.1'"):
        evaluate(steered, train, held_out, site="encoder.1")
    foreign = SAE(WIDTH, 8, "relu", info=SAEInfo(model="other", site="encoder.7"))
    with torch.no_grad():
        foreign.b_dec += 5
    with pytest.raises(ConceptError, match="explains nothing of site 'encoder.0' of ear.*it says other, encoder.7"):
        evaluate(SteeredModel(steered.model, foreign, "encoder.0", check=False), train, held_out)


def test_the_later_site(steered: SteeredModel, sounds: Make) -> None:
    audio_BCN = steered.model.prepare(sounds(1, 0)[0].source)
    assert later_site(steered, "encoder.0", audio_BCN).name == "encoder.1"
    assert later_site(steered, "encoder.0", audio_BCN, "third").name == "third"
    with pytest.raises(ConceptError, match="no site in its encoder behind 'encoder.1'.*such as decoder.0"):
        later_site(steered, "encoder.1", audio_BCN)
    with pytest.raises(ConceptError, match="'encoder.0' of ear is not passed after 'encoder.1'"):
        later_site(steered, "encoder.1", audio_BCN, "encoder.0")


def test_a_panel_for_each_concept(steered: SteeredModel, sounds: Make) -> None:
    pytest.importorskip("matplotlib", reason="extra eval")
    report = evaluate(steered, sounds(24, 0), sounds(24, 1), counts=[1, 24], draws=0)
    figure = draw(report)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == ["sound=bark", "sound=wind", "sound=rain", "vowel=a"]
    assert list(shown[0].lines[0].get_xdata()) == [1 / 24, 1.0]

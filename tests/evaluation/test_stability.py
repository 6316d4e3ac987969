from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from evaluation.dataset import LabelledSound
from evaluation.matching import in_blocks
from evaluation.seeds import StabilityError
from evaluation.stability import evaluate, of_sounds
from hooks import Site, SiteError, Transcriber
from hooks.store import ActivationStore
from hooks.store_writing import fill
from steer.sae import SAE, SAEInfo

WIDTH, FEATURES = 16, 48


def sae_of(seed: int, d_in: int = WIDTH, d_sae: int = FEATURES) -> SAE:
    torch.manual_seed(seed)
    sae = SAE(d_in, d_sae, "topk", k=6)
    sae.W_dec.data.mul_(0.5)  # else features that are alike would add up to more than the activation
    return sae


def permuted(sae: SAE, order: Tensor) -> SAE:
    other = sae_of(0, sae.d_in, sae.d_sae)
    with torch.no_grad():
        other.W_enc.copy_(sae.W_enc[:, order])
        other.b_enc.copy_(sae.b_enc[order])
        other.W_dec.copy_(1.2 * sae.W_dec[order])  # cosines do not see lengths
        other.b_dec.copy_(sae.b_dec)
    return other


@pytest.fixture
def x_ND() -> Tensor:
    return torch.randn(6_000, WIDTH)


def shares(saes: Sequence[SAE], x_ND: Tensor, column: str = "matched", **options: float) -> list[float]:
    """[by decoder cosine, by correlation, by overlap]."""
    report = evaluate({"site": saes}, {"site": [x_ND]}, **options)  # type: ignore[arg-type]
    return [getattr(row[column], "value", row[column]) for row in report.rows]


# --- what it has to find ---


def test_an_sae_is_all_in_itself(x_ND: Tensor) -> None:
    saes = [sae_of(1)] * 3
    # float32: a cosine with itself may be a little under 1
    for column in ("matched", "in every seed", "lowest pair"):
        assert shares(saes, x_ND, column, cosine=0.9999, correlation=0.9999, overlap=1.0) == [1.0, 1.0, 1.0]


def test_the_order_and_length_of_features_play_no_part(x_ND: Tensor) -> None:
    sae = sae_of(1)
    other = permuted(sae, torch.randperm(FEATURES))
    assert shares([sae, other], x_ND, cosine=0.9999, correlation=0.9999, overlap=1.0) == [1.0, 1.0, 1.0]


def test_another_random_sae_is_near_the_control() -> None:
    """At the median of what random directions and shuffled frames reach, so that chance is a half and not nothing."""
    x_ND = torch.randn(20_000, 64)
    saes = [sae_of(seed, 64, 200) for seed in (1, 2)]
    first = evaluate({"site": saes}, {"site": [x_ND]}).clips
    level = {row["measure"].split(" >=")[0]: row["median of control"] for row in first}
    (cosine, *_) = shares(saes, x_ND, cosine=level["decoder cosine"])
    (by_chance, *_) = shares(saes, x_ND, "control", cosine=level["decoder cosine"])
    # 400 features: four standard errors of a share of a half are 0.1
    assert abs(cosine - by_chance) < 0.1
    assert shares(saes, x_ND) == [0.0, 0.0, 0.0]


def test_shuffled_frames_correlate_by_chance_only() -> None:
    x_ND = torch.randn(8_000, WIDTH)
    report = evaluate({"site": [sae_of(1)] * 2}, {"site": [x_ND]})
    chance = report.clips[2]
    assert chance["measure"] == "correlation >= 0.7"
    # the largest of 48 normal correlations of deviation 1 / sqrt(8000) = 0.011 is about 2.2 of those
    assert chance["median similarity"] == pytest.approx(1, abs=1e-4)
    assert 0.01 < chance["median of control"] < 0.06


def test_half_of_the_features_are_shared(x_ND: Tensor) -> None:
    one, other = (SAE(WIDTH, WIDTH, "relu", None) for _ in range(2))
    with torch.no_grad():
        for sae in (one, other):
            sae.W_dec.copy_(torch.eye(WIDTH))
            sae.W_enc.copy_(torch.eye(WIDTH))
        other.W_dec[8:] *= -1  # the opposite direction is another feature: features are positive
        other.W_enc[:, 8:] *= -1
    assert shares([one, other], x_ND) == [0.5, 0.5, 0.5]
    # now eight of the other are dead, and the dead ones of either side do not count
    with torch.no_grad():
        other.b_enc[8:] = -100
    report = evaluate({"site": [one, other]}, {"site": [x_ND]})
    assert [(row["seed"], row["live"], row["matched"]) for row in report.clips] == [
        (0, 16, 0.5),
        (1, 8, 1.0),
    ] * 3
    assert report.rows[0]["live"] == 12
    assert report.rows[0]["matched"].value == pytest.approx((16 * 0.5 + 8 * 1.0) / 24)
    assert report.rows[0]["lowest pair"].value == 0.5


def test_three_seeds_by_hand() -> None:
    """Directions in the plane: 0, 90 | 0, 60 | 30, 90 degrees, at a threshold between cos 30 and cos 60."""
    degrees = ([0, 90], [0, 60], [30, 90])
    saes = []
    for angles in degrees:
        sae = SAE(2, 2, "relu", None)
        radians = torch.deg2rad(torch.tensor(angles, dtype=torch.float32))
        with torch.no_grad():
            sae.W_dec.copy_(torch.stack([radians.cos(), radians.sin()], 1))
            sae.W_enc.copy_(torch.linalg.inv(sae.W_dec))
        saes.append(sae)
    report = evaluate({"site": saes}, {"site": [torch.rand(50, 2)]}, cosine=0.99)
    matched = {(row["seed"], row["other"]): row["matched"] for row in report.clips[:6]}
    assert matched == {(0, 1): 0.5, (1, 0): 0.5, (0, 2): 0.5, (2, 0): 0.5, (1, 2): 0.0, (2, 1): 0.0}
    # shares: seed 0: 0.5 (in seed 1), 0.5 (in seed 2); seed 1: 0.5, 0; seed 2: 0, 0.5
    assert report.rows[0]["matched"].value == pytest.approx(2 / 6)
    assert report.rows[0]["in every seed"].value == 0
    assert report.rows[0]["lowest pair"].value == 0
    wide = evaluate({"site": saes}, {"site": [torch.rand(50, 2)]}, cosine=0.86).rows[0]  # under cos 30
    assert wide["in every seed"].value == wide["lowest pair"].value == 1


def test_features_that_fire_together_overlap_whatever_their_direction(x_ND: Tensor) -> None:
    one, other = (SAE(WIDTH, WIDTH, "relu", None) for _ in range(2))
    with torch.no_grad():
        for sae in (one, other):
            sae.W_dec.copy_(torch.eye(WIDTH))
            sae.W_enc.copy_(torch.eye(WIDTH))
        other.W_dec += 0.5 * torch.eye(WIDTH).roll(1, 0)  # 27 degrees from the axes
    (cosine, correlation, overlap) = shares([one, other], x_ND, cosine=0.95)
    assert (cosine, correlation, overlap) == (0, 1, 1)
    (by_chance,) = [row["control"] for row in evaluate({"site": [one, other]}, {"site": [x_ND]}).rows[2:]]
    assert by_chance.value == 0  # half of the frames each, at random: a third overlaps


# --- the parts ---


@pytest.mark.parametrize("sizes", [[6_000], [1] * 50 + [5_950], [1_000] * 6, [0, 4_096, 1_904]])
def test_how_blocks_are_cut_plays_no_part(sizes: list[int], x_ND: Tensor) -> None:
    saes = {"site": [sae_of(1), sae_of(2)]}
    options = {"cosine": 0.4, "correlation": 0.3, "block": 1_000}
    whole = evaluate(saes, {"site": [x_ND]}, **options)  # type: ignore[arg-type]
    cut = evaluate(saes, {"site": iter(x_ND.split(sizes))}, **options)  # type: ignore[arg-type]
    assert cut.to_dict() == whole.to_dict()
    assert 0 < whole.rows[1]["matched"].value < 1


def test_one_pass_and_several_blocks_agree(x_ND: Tensor) -> None:
    saes = {"site": [sae_of(1), sae_of(2)]}
    found = [evaluate(saes, {"site": [x_ND]}, block=block).clips for block in (10_000, 500)]
    for one, several in zip(*found, strict=True):
        assert one["median similarity"] == pytest.approx(several["median similarity"], abs=1e-5)
        assert (one["live"], one["matched"]) == (several["live"], several["matched"])


# --- as it is used ---


def test_sites_of_a_store(tmp_path: Path) -> None:
    from hooks import wrap_model

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Conv1d(1, WIDTH, 8, 4), torch.nn.Conv1d(WIDTH, WIDTH, 1)

        def forward(self, audio_BCN: Tensor) -> Tensor:
            return self.second(self.first(audio_BCN).tanh())

    model = wrap_model(Net(), Site("first", "first", "BDT"), Site("second", "second", "BDT"))
    model.sample_rate = 8_000
    store: ActivationStore = fill(
        tmp_path / "store", model, [torch.randn(1, 4_000) for _ in range(5)], ["first", "second"]
    )
    saes = {site: [sae_of(seed) for seed in range(3)] for site in ("first", "second")}
    report = evaluate(saes, {site: in_blocks(store.frames(site), 300) for site in saes})
    assert [(row["site"], row["measure"]) for row in report.rows] == [
        (site, measure)
        for site in saes
        for measure in ("decoder cosine >= 0.7", "correlation >= 0.7", "firing overlap >= 0.5")
    ]
    assert len(report.clips) == 2 * 3 * 6
    for row in report.rows:
        for column in ("matched", "in every seed", "control"):
            interval = row[column]
            assert 0 <= interval.low <= interval.value <= interval.high <= 1
            assert interval.count == round(3 * row["live"])
    saved = json.loads(report.save(tmp_path / "stability.json").read_text())
    assert saved["about"]["seeds"] == {"first": 3, "second": 3}
    assert len(report.markdown().splitlines()) == 8


def test_what_cannot_be_compared(x_ND: Tensor) -> None:
    one, other = sae_of(1), sae_of(2)
    with pytest.raises(StabilityError, match="site: stability compares SAEs of several seeds, there is 1"):
        evaluate({"site": [one]}, {"site": [x_ND]})
    with pytest.raises(StabilityError, match="SAEs for activations 8 and 16 wide cannot be compared"):
        evaluate({"site": [one, sae_of(3, d_in=8)]}, {"site": [x_ND]})
    with pytest.raises(StabilityError, match="site: there are no activations, only of another"):
        evaluate({"site": [one, other]}, {"another": [x_ND]})
    with pytest.raises(StabilityError, match="take activations 16 wide, these are 5 wide"):
        evaluate({"site": [one, other]}, {"site": [x_ND[:, :5]]})
    for blocks in ([], [x_ND[:3]]):
        with pytest.raises(StabilityError, match=r"no feature that fires on 10 of [03] frames"):
            evaluate({"site": [one, other]}, {"site": blocks})


# --- sounds ---


def lossless(info: SAEInfo) -> SAE:
    """For the listener's four axes, which are never below zero."""
    sae = SAE(4, 16, "relu", info=info)
    with torch.no_grad():
        sae.W_dec.zero_()
        sae.W_dec[:4] = torch.eye(4)
        sae.W_enc.copy_(sae.W_dec.T)
    return sae


def test_of_sounds(listener: Transcriber) -> None:
    sounds = [LabelledSound(level * torch.rand(1_600), str(level)) for level in (0.5, -0.5, -0.2)]
    saes = {site: [lossless(SAEInfo(site=site)) for _ in range(2)] for site in ("ear.0", "ear.1")}
    report = of_sounds(listener, saes, sounds)
    assert [row["site"] for row in report.rows] == ["ear.0"] * 3 + ["ear.1"] * 3
    assert {row["live"] for row in report.rows} == {2}  # above zero in one sound, below in the others
    assert all(row["in every seed"].value == 1 for row in report.rows)
    assert report.about["explained variance"]["ear.0"] == pytest.approx([1, 1], abs=1e-6)
    assert (report.about["model"], report.about["sounds"]) == ("listener", 3)


def test_saes_of_another_model(listener: Transcriber) -> None:
    sounds = [LabelledSound(torch.rand(1_600), "x")]
    with pytest.raises(SiteError, match="listener has no site 'ear.2'"):
        of_sounds(listener, {"ear.2": [lossless(SAEInfo())] * 2}, sounds)
    with pytest.raises(StabilityError, match="16 wide, but site 'ear.0' of listener is 4 wide"):
        of_sounds(listener, {"ear.0": [sae_of(1)] * 2}, sounds)
    foreign = lossless(SAEInfo(model="other", site="ear.0"))
    foreign.W_dec.data *= -1
    with pytest.raises(StabilityError, match="explains nothing there.*it says other, ear.0"):
        of_sounds(listener, {"ear.0": [foreign] * 2}, sounds)

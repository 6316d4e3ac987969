"""The read-out on the features that remain, on clips of which it is known what their features carry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evaluation.ablation import ConceptError
from evaluation.dataset import LabelledSound
from evaluation.passes import Kept
from evaluation.remaining import evaluate, remaining
from evaluation.site_features import site_features
from hooks import Clip, Site
from hooks.model import AudioModel
from steer import SAE, SAEInfo, SteeredModel

pytest.importorskip("sklearn", reason="extra eval")

WIDTH, FRAMES, RATE = 24, 4, 4000
BARK, VOWEL = (3, 11, 17), (5, 20)


class Twice(nn.Module):
    """Samples are activations, WIDTH a frame, and so they are at both sites; counts its runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.runs = nn.Identity(), nn.Identity(), 0

    def forward(self, audio_BCN: Tensor) -> Tensor:
        self.runs += 1
        return self.second(self.first(audio_BCN[:, 0].unflatten(1, (-1, WIDTH))))


@pytest.fixture
def steered() -> SteeredModel:
    """Features are the channels at the first site; at the second the last half of them is blind."""
    module = Twice()
    sites = [Site.of(module, name, f"encoder.{n}", width=WIDTH) for n, name in enumerate(("first", "second"))]
    saes = {}
    for site in sites:
        sae = SAE(WIDTH, WIDTH, "relu", info=SAEInfo(model="twice", site=site.name))
        with torch.no_grad():
            sae.W_dec.copy_(torch.eye(WIDTH))
            sae.W_enc.copy_(torch.eye(WIDTH))
            if site.name == "encoder.1":
                sae.W_enc[:, WIDTH // 2 :] = 0
                sae.b_dec[WIDTH // 2 :] = 0.5  # nearly the mean there
                sae.b_dec[VOWEL[1]] = 2
        saes[site.name] = sae
    model = AudioModel(module, sites, name="twice", sample_rate=RATE)
    return SteeredModel(model, saes, check=False)  # the proof's second of noise is not a whole number of frames


def sounds(count: int, seed: int) -> list[LabelledSound]:
    """Clips whose features are noise, and 3 more where they carry a label of the clip."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for index in range(count):
        f_TF = torch.rand(FRAMES, WIDTH, generator=generator)
        bark, vowel = index % 3 == 0, index % 4 < 2
        f_TF[0, list(BARK)] += 3 * bark  # in one frame: the maximum has all of it, the mean a quarter
        f_TF[:, list(VOWEL)] += 3 * vowel
        labels = {"sound": "bark" if bark else ("rain", "wind")[index % 2], "vowel": "a" if vowel else "o"}
        made.append(LabelledSound(Clip(f_TF.flatten()[None], RATE), str(index), labels))
    return made


def test_what_is_needed_is_what_carries_the_concept_at_each_site(steered: SteeredModel) -> None:
    train, held_out = sounds(48, 0), sounds(60, 1)
    reports = evaluate(
        steered, train, held_out, ["sound=bark", "vowel"], sites=list(steered.saes), counts=[1, 2, 3, 8, 12]
    )
    assert list(reports) == ["encoder.0", "encoder.1"]
    first, second = (report.rows for report in reports.values())
    assert [row["concept"] for row in first] == ["sound=bark", "vowel=a", "mean of 2"]
    assert reports["encoder.0"].about["features that fire"] == WIDTH
    assert reports["encoder.1"].about["features that fire"] == WIDTH // 2
    assert sorted(reports["encoder.0"].about["enough"]["sound=bark"]) == list(BARK)
    assert (first[0]["needed"].value, first[1]["needed"].value) == (3 / 24, 2 / 24)
    # the blind half has one of the three and one of the two
    assert sorted(reports["encoder.1"].about["enough"]["sound=bark"]) == [3, 11]
    assert (second[0]["needed"].value, second[1]["needed"].value) == (2 / 12, 1 / 12)
    assert first[0]["random"].value > 3 * first[0]["needed"].value
    # the other concept lies on other features, and is not lost
    assert reports["encoder.0"].about["kept"]["sound=bark"]["vowel=a"] == 1.0
    # each clip once for both sites
    assert steered.model.module.runs == len(train) + len(held_out)


def test_the_maximum_over_a_clip_or_the_mean_is_read(steered: SteeredModel) -> None:
    (clip,) = sounds(1, 3)
    features = site_features(steered, ["encoder.0"], [clip])["encoder.0"]
    x_TD = clip.source.waveform.unflatten(1, (-1, WIDTH))[0]  # type: ignore[union-attr]
    assert features.max_NF[0] == pytest.approx(x_TD.amax(0).numpy())
    assert features.mean_NF[0] == pytest.approx(x_TD.mean(0).numpy(), rel=1e-6)


def test_features_that_are_kept_are_not_passed_again(steered: SteeredModel) -> None:
    clips, kept = sounds(9, 0), Kept(None, "")
    before = site_features(steered, list(steered.saes), clips, kept)
    after = site_features(steered, list(steered.saes), sounds(11, 0), kept)
    assert steered.model.module.runs == 11
    assert (after["encoder.1"].max_NF[:9] == before["encoder.1"].max_NF).all()


def test_what_remains_is_everything_but_the_first_of_an_order() -> None:
    f_NF = np.arange(1.0, 11.0).reshape(2, 5)
    (run,) = remaining(f_NF, np.array([0, 2, 3]), [np.array([3, 0, 2])], [1, 3])
    assert len(run) == 2
    assert run[0].tolist() == [[1, 3, 0], [6, 8, 0]]
    assert run[1].tolist() == [[0, 0, 0], [0, 0, 0]]


def test_an_sae_of_another_site_is_refused(steered: SteeredModel) -> None:
    sae = steered.saes["encoder.0"]
    assert isinstance(sae, SAE)
    with torch.no_grad():
        sae.b_dec += 5
        sae.W_enc.zero_()
    with pytest.raises(ConceptError, match="explains nothing of site 'encoder.0' of twice"):
        evaluate(steered, sounds(24, 0), sounds(24, 1), sites=["encoder.0"])

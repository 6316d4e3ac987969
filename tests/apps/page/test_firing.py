"""On a model whose features are known: 0 is how far a frame's mean is above zero, 1 how far below."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from apps.page.firing import Firing, draw, fires, strongest_in
from evaluation.atlas import AtlasError
from evaluation.atlas_build import build
from evaluation.dataset import LabelledSound
from hooks import Clip, SiteError, Transcriber
from hooks.site import Site
from steer.errors import EditError
from steer.sae import SAE
from steer.steered import SteeredModel

RATE = 16_000


@pytest.fixture
def steered(listener: Transcriber) -> SteeredModel:
    sae = SAE(4, 4, "relu").requires_grad_(False)
    sae.W_enc.copy_(torch.eye(4))
    return SteeredModel(listener, sae, "ear.0")


def pulses(*at_s: float, seconds: float = 2.0, height: float = 0.5) -> Clip:
    """Frames of 10 ms at these times, each lower than the one before; below zero in between."""
    sound = torch.full((round(100 * seconds), 160), -0.1)
    for place, start in enumerate(at_s):
        sound[round(100 * start)] = height - 0.1 * place
    return Clip(sound.reshape(1, -1), RATE)


def test_a_feature_along_a_sound(steered: SteeredModel) -> None:
    firing = fires(steered, "ear.0", 0, pulses(0.5, 1.25))
    assert len(firing.value_T) == len(firing.time_T) == 200
    assert firing.time_T[[0, 50]].tolist() == pytest.approx([0.005, 0.505])
    assert firing.value_T[50] == pytest.approx(0.5)
    assert firing.peaks() == [pytest.approx((0.505, 0.5)), pytest.approx((1.255, 0.4))]
    words = "Feature 0 at ear.0 fires in 1 % of the frames. It is highest at 0.50 s (0.5), 1.25 s (0.4)."
    assert firing.words() == words
    assert fires(steered, "ear.0", 2, pulses()).words() == "Feature 2 at ear.0 never fires in this sound."


def test_times_go_on_in_a_sound_of_several_stretches(steered: SteeredModel) -> None:
    firing = fires(steered, "ear.0", 0, pulses(40.0, seconds=41.0))
    assert firing.peaks() == [pytest.approx((40.005, 0.5))]


def test_peaks_are_apart() -> None:
    value_T = torch.tensor([0.0, 5, 4.5, 4.75, 0, 0, 3, 3, 0, 1])
    firing = Firing("s", 0, value_T, torch.arange(10) * 0.075)
    # 4.75 is too near to 5; of equal neighbours the last counts, and 1 is too near to that
    assert firing.peaks(top=5) == [pytest.approx((0.075, 5.0)), pytest.approx((0.525, 3.0))]
    assert len(firing.peaks(top=1)) == 1


def test_mistakes(steered: SteeredModel, listener: Transcriber) -> None:
    with pytest.raises(EditError, match="no SAE at 'latent'; there are SAEs at ear.0"):
        fires(steered, "latent", 0, pulses())
    with pytest.raises(EditError, match="no feature 4"):
        fires(steered, "ear.0", 4, pulses())
    timeless = SteeredModel(listener, steered.saes["ear.0"], Site("ear", "layers.0", width=4), check=False)
    with pytest.raises(SiteError, match="no frame rate"):
        fires(timeless, "ear", 0, pulses())


def test_the_strongest_features_with_their_labels(steered: SteeredModel) -> None:
    sounds = [
        LabelledSound(pulses(*(0.1 * i for i in range(1, 2 + n))), str(n), {"label": "high" if n > 3 else "low"})
        for n in range(8)
    ]
    atlas = build(steered, sounds)["ear.0"]
    first, second = strongest_in(steered, "ear.0", pulses(0.5), atlas)
    assert (first["feature"], first["frames (%)"]) == (1, 99.5)
    assert second == {
        "feature": 0, "frames (%)": 0.5, "mean": 0.0025, "max": 0.5, "highest at (s)": 0.51,
        "tells: AUROC (chance)": f"label:high 1.00 ({atlas.concepts[0].chance:.2f})",
    }  # fmt: skip
    assert strongest_in(steered, "ear.0", pulses(0.5))[0]["tells: AUROC (chance)"] == ""
    assert len(strongest_in(steered, "ear.0", pulses(0.5), top=1)) == 1
    with pytest.raises(AtlasError, match="the atlas is of 4 features at other"):
        strongest_in(steered, "ear.0", pulses(0.5), replace(atlas, site="other"))


def test_the_picture(steered: SteeredModel) -> None:
    pytest.importorskip("matplotlib", reason="pictures are drawn by matplotlib")
    clip = pulses(0.5, 1.25)
    above, below = draw(clip, fires(steered, "ear.0", 0, clip)).axes
    assert above.get_xlim() == below.get_xlim() == (0.0, 2.0)
    marks = [line.get_xdata() for line in below.lines if line.get_marker() == "v"]
    assert [float(torch.as_tensor(x).ravel()[0]) for x in marks] == pytest.approx([0.505, 1.255])
    # silence, a sound of one frame, and a long one of which the stretch around the peak is drawn
    for clip in (Clip(torch.zeros(1, RATE), RATE), Clip(torch.zeros(1, 160), RATE), pulses(80.0, seconds=100.0)):
        figure = draw(clip, fires(steered, "ear.0", 0, clip))
    assert figure.axes[1].get_xlim() == pytest.approx((40.0, 100.0))

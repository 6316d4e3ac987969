import pytest
import torch

from hooks import AudioModel, Clip
from steer.directions import By, direction, directions_from_labels, directions_from_pairs, sound_means
from steer.edits import AddDirection
from steer.errors import EditError
from steer.steered import SteeredModel
from tests.hooks.tiny import SITES, clips, tiny_model

STEP = 0.3
PLAIN = clips(6)


@pytest.fixture
def model() -> AudioModel:
    return tiny_model()


def raised(clip: Clip, by: float = STEP) -> Clip:
    """With a constant added: what that does to an activation of this model is the same for every sound."""
    return Clip(clip.waveform + by, clip.sample_rate)


def test_a_sound_is_the_mean_of_its_frames_also_where_it_is_cut(model: AudioModel) -> None:
    long = Clip(torch.cat([clip.waveform for clip in clips(70)], dim=1), 8000)
    assert long.seconds > 30
    (fine_D,) = sound_means(model, [long], "fine")["fine"]
    expected = model.module.fine(long.waveform[None]).mean(2)[0].double()
    torch.testing.assert_close(fine_D, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("by", ["means", "pca"])
def test_pairs_give_what_was_done_to_the_sounds(by: By, model: AudioModel) -> None:
    amounts = [STEP * (1 + 0.2 * i) for i in range(6)]
    pairs = [(raised(clip, amount), clip) for clip, amount in zip(PLAIN, amounts, strict=True)]
    found = directions_from_pairs(model, pairs, SITES, by, "raised")
    fine, coarse = model.module.fine, model.module.coarse
    fine_D = 1.5 * STEP * fine.weight.sum((1, 2))
    torch.testing.assert_close(found["fine"].vector, fine_D, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(found["coarse"].vector, coarse.weight.sum(2) @ fine_D, atol=1e-5, rtol=1e-3)
    assert [(one.site, one.name, one.model) for one in found.values()] == [(site, "raised", "tiny") for site in SITES]


def test_pca_is_the_part_along_the_first_axis() -> None:
    offsets_ND = torch.tensor([[9.0, 1, 0], [7, -1, 0], [8, 0, 0.5]]).double()
    found_D = direction(torch.tensor([2.0, 1, 1]).double(), offsets_ND, "pca", "name", "site").vector
    assert found_D.dtype == torch.float32
    torch.testing.assert_close(found_D, torch.tensor([2.0, 0, 0]), atol=0.2, rtol=0)


@pytest.mark.parametrize("by", ["means", "pca"])
def test_labels_give_the_step_from_one_mean_to_the_other(by: By, model: AudioModel) -> None:
    sounds = [raised(clip) if i % 2 else clip for i, clip in enumerate(PLAIN)]
    labels = [i % 2 == 1 for i in range(6)]
    found = directions_from_labels(model, sounds, labels, "fine", by)["fine"].vector
    means_ND = sound_means(model, sounds, "fine")["fine"]
    expected_D = (means_ND[1::2].mean(0) - means_ND[0::2].mean(0)).float()
    torch.testing.assert_close(found, expected_D, atol=0.02, rtol=0.05 if by == "pca" else 1e-5)


def test_what_was_fitted_steers(model: AudioModel) -> None:
    found = directions_from_pairs(model, [(raised(clip), clip) for clip in PLAIN], SITES)
    steered, audio = SteeredModel(model), PLAIN[0].waveform[None]
    with steered.edit({"fine": AddDirection(found["fine"])}):
        edited = steered(audio)
    torch.testing.assert_close(edited, model(audio + STEP), atol=1e-5, rtol=1e-4)


def test_what_gives_no_direction(model: AudioModel) -> None:
    with pytest.raises(EditError, match="at least one sound"):
        directions_from_pairs(model, [], "fine")
    with pytest.raises(EditError, match="do not differ"):
        directions_from_pairs(model, [(PLAIN[0], PLAIN[0])], "fine")
    with pytest.raises(EditError, match="with the attribute and sounds without"):
        directions_from_labels(model, PLAIN, [True] * 6, "fine")
    with pytest.raises(EditError, match="2 labels for 6 sounds"):
        directions_from_labels(model, PLAIN, [True, False], "fine")
    with pytest.raises(EditError, match="not by 'median'"):
        directions_from_pairs(model, [(PLAIN[0], PLAIN[1])], "fine", "median")  # type: ignore[arg-type]

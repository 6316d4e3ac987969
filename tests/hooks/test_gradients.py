"""Gradients where they are asked for, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hooks import AudioModel, attach, capture
from hooks.capture import Recorder
from hooks.gradients import gradients, gradients_kept
from hooks.model import Encoder, Source
from tests.hooks.tiny import clips, tiny_model


class Embedding(Encoder):
    """Its embedding is what the module gives, frame by frame."""

    def _embed(self, source: Source) -> Tensor:
        return self.run(self.prepare(source))[0].T


def test_they_are_kept_inside_a_block_that_wants_them_and_blocks_may_be_nested() -> None:
    x = torch.ones(1, requires_grad=True)
    with gradients(False):
        assert not gradients_kept() and not (2 * x).requires_grad
        with pytest.raises(ValueError, match="stop"), gradients():
            assert gradients_kept() and (2 * x).requires_grad
            with gradients(False):  # the call inside does not ask, the one around it does
                assert (2 * x).requires_grad
            raise ValueError("stop")
        assert not gradients_kept() and not (2 * x).requires_grad
    with torch.no_grad(), gradients():
        assert (2 * x).requires_grad
    assert not gradients_kept() and torch.is_grad_enabled()


def test_run_and_embed_keep_them_on_request() -> None:
    model, clip = tiny_model(), clips(1)[0]
    encoder = Embedding(model.module, model.sites.values(), sample_rate=8000)
    audio_BCN = model.prepare(clip)
    assert not model.run(audio_BCN).requires_grad and not encoder.embed(clip).requires_grad
    assert torch.equal(model.run(audio_BCN, grad=True), model.run(audio_BCN))
    coarse = model.module.coarse
    for score in (model.run(audio_BCN, grad=True).sum(), encoder.embed(clip, grad=True).sum()):
        # each of the three outputs adds its bias in every frame
        (slope,) = torch.autograd.grad(score, coarse.bias)  # type: ignore[arg-type]
        assert slope.tolist() == [audio_BCN.shape[-1] // 40] * 3
    with gradients():  # as in `steer.attribute`
        assert encoder.embed(clip).requires_grad


@pytest.mark.parametrize("batch", [1, 3])
def test_captured_activations_lead_back_to_what_made_them(batch: int) -> None:
    model, sounds = tiny_model(), [clips(1)[0]] * 3
    pushed = nn.Parameter(torch.zeros(6))

    def captured(grad: bool) -> list[Tensor]:
        with attach(model.module, model.site("fine"), lambda x_BTD: x_BTD + pushed):
            return [one.activations["coarse"] for one in capture(model, sounds, "coarse", batch=batch, grad=grad)]

    plain, kept = captured(False), captured(True)
    assert all(torch.equal(a, b) and not a.requires_grad for a, b in zip(plain, kept, strict=True))
    frames = plain[0].shape[1]
    for x_BTD in kept:
        (slope_D,) = torch.autograd.grad(x_BTD[..., 1].sum(), pushed, retain_graph=True)
        expected_D = frames * model.module.coarse.weight[1].sum(1)  # type: ignore[index, union-attr]
        torch.testing.assert_close(slope_D, expected_D)


def test_a_recorder_keeps_none_by_itself() -> None:
    model = tiny_model()
    x = model.prepare(clips(1)[0])
    with Recorder(model.module, [model.site("fine")]) as recorder:
        model(x)
        assert not recorder.take()["fine"].requires_grad
        with gradients():
            model(x)
        assert recorder.take()["fine"].requires_grad


def test_a_model_of_ones_own_with_a_plain_run_keeps_them_for_capture_too() -> None:
    class Mine(AudioModel):
        def run(self, audio_BCN: Tensor) -> Tensor:  # type: ignore[override]
            return self.module(audio_BCN)

    model = tiny_model()
    mine = Mine(model.module, model.sites.values(), sample_rate=8000)
    (one,) = capture(mine, clips(1), "coarse", grad=True)
    assert one.activations["coarse"].requires_grad

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hooks import (
    AudioFileError,
    AudioModel,
    Clip,
    ModelError,
    Site,
    SiteError,
    at_time,
    attach,
    capture,
    sound_until,
    write_clip,
)
from hooks.capture import Recorder
from hooks.families.wavtokenizer import WavTokenizerCodec
from hooks.timing import current_time


def test_it_sees_what_a_plain_torch_hook_sees(codec: WavTokenizerCodec, tmp_path: Path) -> None:
    clips = [Clip(0.1 * torch.randn(1, samples), 8_000) for samples in (1_000, 1_700)]
    write_clip(clips[1], tmp_path / "b.wav", "FLOAT")
    sources = [clips[0], tmp_path / "b.wav"]
    captured = list(capture(codec, sources, ["latent", "backbone.convnext.1.norm"]))
    assert [one.source for one in captured] == sources
    seen: dict[str, Tensor] = {}
    codec.encoder.register_forward_hook(lambda m, a, output: seen.update(latent=output.transpose(1, 2)))
    codec.backbone.convnext[1].norm.register_forward_hook(lambda m, a, output: seen.update(norm=output))
    for one, clip in zip(captured, clips, strict=True):
        with torch.no_grad():
            codec.module(clip.waveform)
        assert one.start_s == 0.0
        assert torch.equal(one.activations["latent"], seen["latent"])
        assert torch.equal(one.activations["backbone.convnext.1.norm"], seen["norm"])


def test_long_sounds_come_in_stretches_that_know_their_time(codec: WavTokenizerCodec) -> None:
    clip, times = Clip(0.1 * torch.randn(1, 8_000), 8_000), []
    with attach(codec.module, codec.site("latent"), lambda x_BTD: times.append(current_time())):
        captured = list(capture(codec, [clip], ["latent"], max_s=0.4))
    assert [one.start_s for one in captured] == times == [0.0, 0.4, 0.8]
    # 200 frames a second
    assert [one.activations["latent"].shape[1] for one in captured] == [80, 80, 40]
    alone = next(capture(codec, [clip.waveform[:, 3_200:6_400]], ["latent"]))
    assert torch.equal(captured[1].activations["latent"], alone.activations["latent"])


def test_it_runs_one_sound_at_a_time(codec: WavTokenizerCodec) -> None:
    taken: list[int] = []

    def sounds() -> object:
        for index in range(5):
            taken.append(index)
            yield torch.randn(1, 400)

    stream = capture(codec, sounds(), ["latent"])  # type: ignore[arg-type]
    next(stream)
    assert taken == [0]
    # nothing is hooked while the caller works on what it got
    assert not codec.encoder._forward_hooks


def test_sounds_of_equal_length_run_beside_each_other(codec: WavTokenizerCodec) -> None:
    lengths = [800, 400, 800, 1_300, 800, 400, 800]
    sounds = [0.1 * torch.randn(1, length) for length in lengths]
    rows: list[int] = []
    with attach(codec.module, codec.site("latent"), lambda x_BTD: rows.append(len(x_BTD))):
        batched = list(capture(codec, sounds, ["latent"], max_s=0.1, batch=3))
    # at 0 s and at 0.1 s in the sound are not the same; 0.1 s is 800 samples
    assert sorted(rows) == [1, 2, 2, 3]
    alone = list(capture(codec, sounds, ["latent"], max_s=0.1))
    assert [(id(one.source), one.start_s, one.last) for one in batched] == [
        (id(one.source), one.start_s, one.last) for one in alone
    ]
    for one, other in zip(batched, alone, strict=True):
        # the products of a batch round in another order
        torch.testing.assert_close(one.activations["latent"], other.activations["latent"], atol=1e-5, rtol=1e-4)


def test_what_comes_before_a_damaged_sound_is_given_first(codec: WavTokenizerCodec, tmp_path: Path) -> None:
    given = []
    with pytest.raises(AudioFileError):
        for one in capture(codec, [torch.randn(1, 400), torch.randn(1, 300), tmp_path / "no.wav"], ["latent"], batch=2):
            given.append(one)
    assert len(given) == 2


def test_frames_of_padding_are_left_out(codec: WavTokenizerCodec) -> None:
    audio_BN = 0.1 * torch.randn(1, 800)
    with Recorder(codec.module, [codec.site("latent")]) as recorder:
        codec.module(audio_BN)
        whole = recorder.take()["latent"]
        with sound_until(0.05):
            codec.module(audio_BN)
        with sound_until(0.15), at_time(0.1):
            codec.module(audio_BN)
    # 200 frames a second; the second window starts at 0.1 s
    assert torch.equal(recorder.take()["latent"], torch.cat([whole[:, :10], whole[:, :10]], dim=1))


def test_several_passes_are_put_one_behind_the_other() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x_BTD: Tensor) -> Tensor:
            first, second = x_BTD.split([3, 2], dim=1)
            # in place, as some models do: what was recorded must not follow
            return torch.cat([self.layer(first).add_(1), self.layer(second)], dim=1)

    model, x_BTD = Twice(), torch.randn(2, 5, 4)
    with Recorder(model, [Site("s", "layer")]) as recorder:
        model(x_BTD.clone())
        assert torch.equal(recorder.take()["s"], x_BTD)
        with pytest.raises(SiteError, match="was not passed"):
            recorder.take()


def test_a_site_that_is_not_passed(codec: WavTokenizerCodec) -> None:
    with pytest.raises(SiteError, match="'feature_extractor' was not passed: the model's forward does not call"):
        next(capture(codec, [torch.randn(1, 400)], ["latent", "feature_extractor"]))
    assert not codec.encoder._forward_hooks


def test_an_unknown_site_leaves_no_hook_on_the_others(codec: WavTokenizerCodec) -> None:
    with pytest.raises(SiteError, match="no site 'nowhere'"):
        next(capture(codec, [torch.randn(1, 400)], ["latent", "nowhere"]))
    with pytest.raises(SiteError, match="no module"), Recorder(codec.module, [codec.site("latent"), Site("x", "x")]):
        pass
    assert not codec.encoder._forward_hooks


def test_a_model_that_takes_no_audio() -> None:
    with pytest.raises(ModelError, match="your own inputs"):
        next(capture(AudioModel(nn.Identity()), [torch.randn(1, 400)], [""]))


def test_one_site_by_its_name(codec: WavTokenizerCodec) -> None:
    (one,) = capture(codec, [torch.randn(1, 400)], "latent")
    assert list(one.activations) == ["latent"]


@pytest.mark.parametrize("site", ["latent", "nowhere"])
def test_a_users_module_keeps_its_modes(codec: WavTokenizerCodec, site: str) -> None:
    module, seen = codec.module.train(), []
    module.backbone.eval()
    before = [part.training for part in module.modules()]
    module.register_forward_hook(lambda *_: seen.append(module.training))
    with suppress(SiteError):
        list(capture(module, [torch.randn(1, 400)], [site]))
    assert seen == [False] * (site == "latent")
    assert [part.training for part in module.modules()] == before


def test_what_a_model_of_ours_is_in_stays(codec: WavTokenizerCodec) -> None:
    list(capture(codec, [torch.randn(1, 400)], "latent"))
    assert not codec.module.training

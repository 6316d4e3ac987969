"""Ablations of several sets of features in one run are those of runs one by one; see also `test_concepts`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evaluation import ablation
from evaluation.ablation import RowPool, ablated_runs, decoder_norms
from evaluation.dataset import LabelledSound
from hooks import Clip, Site, attach, capture, wrap_model
from hooks.model import AudioModel
from hooks.timing import sound_until
from steer import SAE, SteeredModel
from steer.delta import Mode
from steer.edits import Ablate

RATE, WIDTH, FEATURES = 400, 8, 20
ORDERS, COUNTS = [np.arange(FEATURES), np.arange(FEATURES)[::-1].copy()], [1, 4, FEATURES]


class Net(nn.Module):
    """`front` holds [B, D, T], `layer` a tuple; `between` is what the user's model does between `front` and `layer`."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.layer = nn.Conv1d(1, WIDTH, 4, 4), nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, audio_BCN: Tensor) -> Tensor:
        return self.head(self.layer(self.between(self.front(self.ahead(audio_BCN))).transpose(1, 2))[0])

    def ahead(self, audio_BCN: Tensor) -> Tensor:
        return audio_BCN

    def between(self, x_BDT: Tensor) -> Tensor:
        return x_BDT


class Alone(Net):
    """Whose batch cannot grow."""

    def between(self, x_BDT: Tensor) -> Tensor:
        if len(x_BDT) != 1:
            raise RuntimeError("the size of tensor a (2) must match the size of tensor b (1)")
        return x_BDT


class Gregarious(Net):
    """Whose rows see each other."""

    def between(self, x_BDT: Tensor) -> Tensor:
        return x_BDT - 0.5 * x_BDT.mean(0)


class Stereo(Net):
    """That makes two rows of a sound itself."""

    def ahead(self, audio_BCN: Tensor) -> Tensor:
        return torch.cat([audio_BCN, 0.5 * audio_BCN])


@pytest.fixture
def sounds() -> list[LabelledSound]:
    """Of 1.3 and 0.5 seconds."""
    generator = torch.Generator().manual_seed(1)
    clips = [Clip(torch.randn(1, length, generator=generator), RATE) for length in (520, 200)]
    return [LabelledSound(clip, str(index), {}) for index, clip in enumerate(clips)]


def steered_net(kind: type[Net], site: str, **sae: Any) -> SteeredModel:
    torch.manual_seed(0)
    module = kind()
    sites = [
        Site("front", "front", "BDT", frame_rate=RATE / 4),
        Site("layer", "layer", element=0),
        Site("head", "head", frame_rate=RATE / 4),
    ]
    return SteeredModel(AudioModel(module, sites, sample_rate=RATE), SAE(WIDTH, FEATURES, **sae), site)


def one_by_one(
    steered: SteeredModel, later: str, sounds: list[LabelledSound], max_s: float, mode: Mode = "reconstruct"
) -> np.ndarray:
    """As a user would, [orders, K, N, D]."""
    runs = []
    for order in ORDERS:
        for count in COUNTS:
            with steered.edit(Ablate(order[:count].tolist()), mode=mode):
                for sound in sounds:
                    seen = capture(steered.model, [sound.source], [later], max_s)
                    parts = [one.activations[later].flatten(0, 1) for one in seen]
                    runs.append(torch.cat(parts).mean(0).numpy())
    return np.stack(runs).reshape(len(ORDERS), len(COUNTS), len(sounds), -1)


def measured(
    steered: SteeredModel, later: str, sounds: list[LabelledSound], mode: Mode = "reconstruct"
) -> tuple[np.ndarray, list[int]]:
    """What `ablated_runs` gives, and how many rows came to the later site in each run of the model."""
    rows: list[int] = []
    (site,) = steered.sites
    with attach(steered.model.module, steered.model.site(later), lambda x_BTD: rows.append(len(x_BTD))):
        runs = list(ablated_runs(steered, site, steered.model.site(later), sounds, ORDERS, COUNTS, iter, mode))
    return np.stack(runs), rows


@pytest.mark.parametrize("sae", [{"activation": "relu"}, {"activation": "topk", "k": 5, "rms_norm": True}])
@pytest.mark.parametrize("site", ["front", "layer"])
@pytest.mark.parametrize("mode", ["delta", "reconstruct"])
def test_a_row_is_a_run_with_the_edit(
    mode: Mode, site: str, sae: dict[str, Any], sounds: list[LabelledSound], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "STRETCH_S", 0.5)
    monkeypatch.setattr(ablation, "ROWS", 3)
    steered = steered_net(Net, site, **sae)
    runs, rows = measured(steered, "head", sounds, mode)
    expected = one_by_one(steered, "head", sounds, 0.5, mode)
    # float32 means of numbers below 1; other batches are summed in another order
    np.testing.assert_allclose(runs, expected, rtol=0, atol=1e-6)
    assert np.abs(expected[0, 1] - expected[1, 1]).max() > 1e-3
    assert np.array_equal(runs[0, 2], runs[1, 2])
    # the first sound has 3 stretches: 2 trials of one row, one of both; then 5 sets of features, of each sound
    assert rows == [1] * 6 + [2] * 3 + [3] * 3 + [2] * 3 + [3, 2]
    assert not any(module._forward_hooks for module in steered.model.module.modules())


@pytest.mark.parametrize("activation", ["relu", "batchtopk", "topk"])
def test_without_any_feature_all_frames_are_the_same_to_the_bit(activation: str, sounds: list[LabelledSound]) -> None:
    """Else a probe, which scales what it reads, could tell sounds by the rounding of sums that cancel."""
    steered = steered_net(Net, "layer", activation=activation, k=5)
    seen: list[Tensor] = []
    (sae,) = steered.saes.values()
    behind = Site("behind", "head", port="input")
    with attach(steered.model.module, behind, lambda x_BTD: seen.append(x_BTD)):
        everything = [np.arange(sae.d_sae)]
        list(ablated_runs(steered, "layer", steered.model.site("head"), sounds, everything, [1, sae.d_sae], iter))
    rows = [x_BTD[-1] for x_BTD in seen if len(x_BTD) == 2]
    assert rows
    assert all(torch.equal(x_TD, sae.b_dec.expand_as(x_TD)) for x_TD in rows)


@pytest.mark.parametrize("kind", [Alone, Gregarious, Stereo])
def test_a_model_that_does_not_widen_runs_one_by_one(kind: type[Net], sounds: list[LabelledSound]) -> None:
    steered = steered_net(kind, "front", activation="relu")
    runs, rows = measured(steered, "head", sounds)
    # the same runs, whose frames are summed in float64 here
    np.testing.assert_allclose(runs, one_by_one(steered, "head", sounds, 30.0), rtol=0, atol=1e-6)
    tried = [2] if kind is Gregarious else []
    each = 2 if kind is Stereo else 1
    assert rows == [each] * 2 + tried + [each] * 5 * len(sounds)
    assert not any(module._forward_hooks for module in steered.model.module.modules())


def test_other_errors_are_told(sounds: list[LabelledSound], monkeypatch: pytest.MonkeyPatch) -> None:
    def between(self: Net, x_BDT: Tensor) -> Tensor:
        if len(x_BDT) > 1:
            raise TypeError("of the model's own")
        return x_BDT

    monkeypatch.setattr(Net, "between", between)
    with pytest.raises(TypeError, match="of the model's own"):
        measured(steered_net(Net, "front", activation="relu"), "head", sounds)


@pytest.mark.parametrize(("family", "widens"), [("Hubert", True), ("WavLM", False)])
def test_speech_encoders(family: str, widens: bool) -> None:
    transformers = pytest.importorskip("transformers", reason="extra ssl")
    config = getattr(transformers, f"{family}Config")(
        hidden_size=WIDTH, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    torch.manual_seed(0)
    model = wrap_model(getattr(transformers, f"{family}Model")(config))
    steered = SteeredModel(model, SAE(WIDTH, FEATURES, "relu"), "encoder.0", check=False)
    sounds = [LabelledSound(Clip(torch.randn(1, 4000), 16_000), "", {})]
    runs, rows = measured(steered, "encoder.2", sounds)
    # WavLM makes its position bias in the first layer, with the rows that are there
    assert max(rows) == (5 if widens else 1)
    # layer norm makes them of order 1; float32 through two layers
    np.testing.assert_allclose(runs, one_by_one(steered, "encoder.2", sounds, 30.0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("wide", [True, False])
def test_the_padding_of_a_window_is_blank(wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers", reason="extra whisper")
    config = transformers.WhisperConfig(
        d_model=WIDTH, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=100, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=3,
    )  # fmt: skip
    torch.manual_seed(0)
    model = wrap_model(transformers.WhisperForConditionalGeneration(config))
    sae = SAE(WIDTH, FEATURES, "relu")
    with torch.no_grad():
        sae.b_dec.uniform_(-1, 1)
    steered = SteeredModel(model, sae, "encoder.0", check=False)
    monkeypatch.setattr(ablation, "widens", lambda *_: wide)
    sound = LabelledSound(Clip(torch.randn(1, 32_000), 16_000), "", {})
    later = model.site("encoder.norm")
    runs = list(ablated_runs(steered, "encoder.0", later, [sound], ORDERS, COUNTS, iter, "delta"))

    def blank(x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD.clone()
        x_BTD[:, 100:] = sae.b_dec  # behind 2 s, 50 frames a second
        return x_BTD

    seen: list[Tensor] = []
    with (
        attach(model.module, model.site("encoder.0"), blank),
        steered.edit(Ablate([0, 1, 2, 3])),
        attach(model.module, later, lambda x_BTD: seen.append(x_BTD[0, :100].mean(0))),
        torch.no_grad(),
    ):
        model.run(model.prepare(sound.source))
    # layer norm makes them of order 1; float32 through a layer
    np.testing.assert_allclose(runs[0][1, 0], seen[0].numpy(), rtol=0, atol=1e-5)


def test_rows_are_pooled_without_padding() -> None:
    pool = RowPool(Site("s", "", frame_rate=10.0))
    x_BTD = torch.arange(20.0).view(2, 10, 1)
    with sound_until(0.4):
        pool(x_BTD)
    assert pool.take() == pytest.approx(np.array([[1.5], [11.5]]))
    pool(x_BTD[:, :5])
    pool(x_BTD[:, 5:])
    assert pool.take() == pytest.approx(np.array([[4.5], [14.5]]))  # several passes are one mean


def test_norms_of_any_decoder() -> None:
    torch.manual_seed(0)
    steered = steered_net(Net, "front", activation="relu")
    sae = SAE(WIDTH, 600, "relu")
    with torch.no_grad():
        sae.W_dec[:, 0] = torch.linspace(0, 9, 600)
        sae.b_dec.add_(1)

    class Other:
        encode, decode = sae.encode, sae.decode

    features = np.array([*range(5, 600, 2), 1])
    expected = sae.W_dec[features].norm(dim=1).detach().numpy()
    for one in (sae, Other):
        steered.saes["front"] = one
        # float32: the bias goes in and out again
        assert decoder_norms(steered, "front", features, 600) == pytest.approx(expected, abs=1e-5)

"""The starter speech encoder that ships: a HuBERT for transformers, whose SAEs fit, and which tells sounds apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.ablation import Pool, run
from evaluation.dataset import Dataset, LabelledSound
from hooks import attach, open_model
from steer import SAE, Ablate, SteeredModel, starter
from steer.recipe import Recipe

transformers = pytest.importorskip("transformers", reason="the starter encoder is a model of transformers (extra ssl)")

SSL = "starter:ssl"
LAYERS = [f"encoder.{i}" for i in range(4)]
FOLDERS = sorted(path.parent for path in (starter.FOLDER / "ssl").rglob("*.safetensors"))


def test_an_sae_for_every_layer() -> None:
    assert starter.saes(SSL) == [f"{SSL}/{name}" for name in LAYERS]
    for name in LAYERS:
        info = SAE.load(f"{SSL}/{name}").info
        assert (info.model, info.site, info.frame_rate) == (SSL, name, 50.0)
        assert info.data and info.license
        assert info.metrics["explained_variance"] > 0.7
    assert list(Recipe.build({"model": SSL}).saes) == LAYERS


@pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])
def test_cards(folder: Path) -> None:
    for section in ("Data", "Licence", "Command", "Quality"):
        assert f"## {section}" in (folder / "README.md").read_text()


def test_it_is_the_librarys_model_to_the_bit() -> None:
    theirs = transformers.HubertModel.from_pretrained(starter.FOLDER / "ssl").eval()
    steered = Recipe.build({"model": SSL}).open()
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(starter.FOLDER / "ssl")
    audio_N = 0.1 * torch.randn(16_000)

    def hidden() -> torch.Tensor:
        return steered.run(steered.model.prepare(audio_N)).last_hidden_state

    prepared_BN = steered.model.prepare(audio_N)[:, 0]
    inputs = extractor(audio_N.numpy(), sampling_rate=16_000, return_tensors="pt").input_values
    torch.testing.assert_close(prepared_BN, inputs, rtol=1e-5, atol=1e-5)  # numpy's mean and ours
    with torch.no_grad():
        expected = theirs(prepared_BN).last_hidden_state
    assert torch.equal(hidden(), expected)
    for site, sae in steered.saes.items():
        with steered.edit({site: Ablate(range(sae.d_sae))}):  # type: ignore[attr-defined]
            assert not torch.equal(hidden(), expected)


def test_it_tells_digits_of_other_recordings_apart(recordings: Path) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="probes (extra eval)")
    steered = SteeredModel(open_model(SSL), SAE.load(f"{SSL}/encoder.1"))
    pool = Pool(steered.sites["encoder.1"])

    def means(sounds: list[LabelledSound]) -> np.ndarray:
        found = []
        for sound in sounds:
            with torch.no_grad(), attach(steered.model.module, steered.sites["encoder.1"], pool):
                run(steered, steered.model.prepare(sound.source))
            found.append(pool.take())
        return np.stack(found)

    train, test = (Dataset(recordings).sounds(["digits"], split, 100) for split in ("train", "valid"))
    x_ND, x_MD = means(train), means(test)
    mean_D, std_D = x_ND.mean(0), x_ND.std(0) + 1e-6
    probe = linear_model.LogisticRegression(C=0.1, max_iter=500)
    probe.fit((x_ND - mean_D) / std_D, [sound.labels["label"] for sound in train])
    accuracy = probe.score((x_MD - mean_D) / std_D, [sound.labels["label"] for sound in test])
    # 0.1 by chance, about 0.35 with random weights; the card's probe has three times as many clips to learn from
    assert accuracy > 0.5

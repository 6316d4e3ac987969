"""SAEs of utterance vectors: trained on some clips, validated on others, compared on all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.dataset import LabelledSound
from evaluation.pooled_saes import DENSE, SAE_NAME, divided_vectors, representations, train_sweep


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Sums of 3 of 20 atoms."""
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(20, 12)) / np.sqrt(12)
    chosen = np.argsort(rng.random((600, 20)), axis=1)[:, :3]
    codes = np.zeros((600, 20))
    np.put_along_axis(codes, chosen, rng.uniform(0.5, 1.5, size=(600, 3)), axis=1)
    return (codes @ atoms).astype(np.float32)


def test_what_is_trained_is_the_papers_sae(vectors: np.ndarray) -> None:
    train, valid = vectors[:400], vectors[400:500]
    swept = train_sweep({"l": train}, {"l": valid}, (50.0, 87.5), width=24, seeds=2, steps=200)["l"]
    assert list(swept.saes) == [(50.0, 0), (87.5, 0), (50.0, 1), (87.5, 1)]
    assert [sae.k for sae in swept.saes.values()] == [12, 3, 12, 3] and swept.width == 24
    for sae in swept.saes.values():
        assert not sae.b_dec.any() and sae.b_enc.any()
        norms = sae.W_dec.norm(dim=1)
        assert (norms.max() / norms.min()) > 1.05  # the rows have any length
    assert not torch.equal(swept.saes[50.0, 0].W_enc, swept.saes[50.0, 1].W_enc)
    ones = np.ones((1, 100))
    errors = {
        (one.name, one.sparsity): one.error(vectors[500:].astype(np.float64), ones)[0]  # type: ignore[index]
        for one in representations(vectors[500:], train, swept)
        if one.name != DENSE
    }
    assert errors[SAE_NAME, 50.0] < 0.2 and errors[SAE_NAME, 50.0] < errors[SAE_NAME, 87.5] < 1
    dense = next(one for one in representations(vectors[500:], train, swept) if one.name == DENSE)
    assert dense.error(vectors[500:], ones) is None and dense.dead is None


def test_clips_for_validation_are_not_trained_on() -> None:
    sounds = [LabelledSound("", str(n), {"group": f"g{n // 4}"}) for n in range(40)]

    def whole(some: list[LabelledSound]) -> dict[str, np.ndarray]:
        return {"l": np.array([[float(one.name)] for one in some])}

    def crops(some: list[LabelledSound]) -> dict[str, np.ndarray]:
        return {"l": np.array([[[float(one.name)]] * 3 for one in some])}

    train, valid = divided_vectors(sounds, whole, crops, 0)["l"]
    assert train.shape == (32 * 4, 1) and valid.shape == (8, 1)
    groups = [set((part[:, 0] // 4).tolist()) for part in (train, valid)]
    assert not groups[0] & groups[1]

"""The released sae-lens opens what `SAE.save` writes and the other way round, with the same features."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from steer.sae import SAE
from tests.interop.peer import SAE_PACKAGES, Peer, random_sae

pytestmark = pytest.mark.interop
KINDS = ["relu", "topk", "batchtopk", "jumprelu", "gated"]
SAES = {f"{kind}-{center}": random_sae(kind, center=center) for kind in KINDS for center in (True, False)} | {
    "topk-layer_norm": random_sae("topk", normalize="layer_norm"),
    "jumprelu-constant_norm": random_sae("jumprelu", normalize="constant_norm_rescale"),
}


def test_the_same_features_both_ways(peer: Callable[..., Peer]) -> None:
    ours = {name: sae.save for name, sae in SAES.items()} | {"rms": random_sae("relu", rms_norm=True).save}
    sae_lens = peer("with_sae_lens.py", ours, *SAE_PACKAGES)
    for name, sae in SAES.items():
        sae_lens.agrees(f"ours/{name}", sae)
    # it has no RMS norm: reading it as a plain SAE would be wrong
    assert "rms refused:" in sae_lens.output
    names = sorted(path.name for path in (sae_lens.folder / "theirs").iterdir() if path.is_dir())
    assert len(names) == 8 + 2 * 7
    for name in names:
        sae_lens.agrees(f"theirs/{name}", SAE.load(sae_lens.folder / "theirs" / name))

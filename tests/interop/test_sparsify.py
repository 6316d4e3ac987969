"""The released eai-sparsify opens what we write for it and the other way round, with the same features."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from steer.errors import SAEError
from steer.formats import write_sae
from steer.sae import SAE
from tests.interop.peer import SAE_PACKAGES, Peer, random_sae

pytestmark = pytest.mark.interop
SAES = {"topk": random_sae("topk"), "topk-uncentred": random_sae("topk", center=False)}


def test_the_same_features_both_ways(peer: Callable[..., Peer]) -> None:
    ours = {name: partial(write_sae, sae, to="sparsify") for name, sae in SAES.items()}
    sparsify = peer("with_sparsify.py", ours, *SAE_PACKAGES)
    for name, sae in SAES.items():
        sparsify.agrees(f"ours/{name}", sae)
    for name in ("layers.3", "square"):
        sparsify.agrees(f"theirs/{name}", SAE.load(sparsify.folder / "theirs" / name))
    with pytest.raises(SAEError, match="a transcoder"):
        SAE.load(sparsify.folder / "theirs" / "transcoder")

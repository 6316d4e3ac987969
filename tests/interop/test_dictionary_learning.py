"""The released dictionary-learning opens what we write for it and the other way round, with the same features."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from steer.formats import write_sae
from steer.sae import SAE
from tests.interop.peer import Peer, random_sae

pytestmark = pytest.mark.interop
KINDS = ["relu", "topk", "batchtopk", "jumprelu", "gated"]
SAES = {f"{kind}-{center}": random_sae(kind, center=center) for kind in KINDS for center in (True, False)}
SAES["one-threshold"] = random_sae("batchtopk")
SAES["one-threshold"].threshold.fill_(0.4)


def test_the_same_features_both_ways(peer: Callable[..., Peer]) -> None:
    ours = {name: partial(write_sae, sae, to="dictionary_learning") for name, sae in SAES.items()}
    # its pin of nnsight is below the one of ours, and its dictionaries use none of it
    dictionary_learning = peer(
        "with_dictionary_learning.py", ours, "--no-deps", "dictionary-learning>=0.1", "einops", "tqdm"
    )
    for name, sae in SAES.items():
        dictionary_learning.agrees(f"ours/{name}", sae)
    names = sorted(path.name for path in (dictionary_learning.folder / "theirs").iterdir() if path.is_dir())
    assert len(names) == 7
    for name in names:
        dictionary_learning.agrees(f"theirs/{name}", SAE.load(dictionary_learning.folder / "theirs" / name))

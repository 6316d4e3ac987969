"""Files of OpenAI's sparse_autoencoder: one torch file for each layer, no config; the activation is in the state dict.

Its loader does a layer norm to the inputs of every SAE with TopK and to no other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hooks.files import whole_file, write_json
from steer.errors import SAEError
from steer.formats.assemble import assemble, info_of, only_plain, taken, tensors_as
from steer.formats.checkpoint import Checkpoint
from steer.sae import SAE, SAEInfo

WEIGHTS, CONFIG = "autoencoder.pt", "config.json"
TENSORS = {"W_enc": "encoder.weight", "b_enc": "latent_bias", "W_dec": "decoder.weight", "b_dec": "pre_bias"}


def knows(checkpoint: Checkpoint) -> bool:
    return {"pre_bias", "latent_bias"} <= checkpoint.state.keys()


def build(checkpoint: Checkpoint) -> SAE:
    """Raises SAEError for an activation that lets negative features through, and for tensors or a k that do not fit."""
    name, state = checkpoint.name, dict(checkpoint.state)
    kind = state.get("activation", "ReLU")
    options = state.get("activation_state_dict") or {}
    if kind not in ("ReLU", "TopK") or (kind == "TopK" and options.get("postact_fn", "ReLU") != "ReLU"):
        raise SAEError(f"{name}: activation {kind!r} {dict(options)} is not supported; there are ReLU and TopK of ReLU")
    if "decoder.linear.weight" in state:  # tied: the encoder's own layer, used the other way round
        state["decoder.weight"] = state["decoder.linear.weight"].T
    tensors = taken(state, TENSORS, name)
    audio = checkpoint.section("audio")
    return assemble(
        name,
        "topk" if kind == "TopK" else "relu",
        tensors,
        checkpoint.k or options.get("k"),
        normalize="layer_norm" if checkpoint.config.get("normalize", kind == "TopK") else None,
        info=info_of(audio, name) if audio else SAEInfo(extra={"format": "openai"}),
    )


def save(sae: SAE, folder: Path) -> None:
    """Write an SAE as its `Autoencoder.from_state_dict` takes it.

    Raises:
        SAEError: it is neither a plain relu SAE nor a top-k SAE with layer norm.
    """
    if sae.activation == "topk" and not sae.rms_norm:
        if sae.normalize != "layer_norm":
            raise SAEError("OpenAI's loader does a layer norm to the inputs of every top-k SAE, and this one has none")
    else:
        only_plain(sae, "OpenAI's format")
        if sae.activation != "relu":
            raise SAEError(f"OpenAI's format has ReLU and TopK only: {sae.activation} cannot be written for it")
    state: dict[str, Any] = dict(tensors_as(TENSORS, sae, center=True))
    # counters of its training, which its loader asks for
    state["stats_last_nonzero"] = torch.zeros(sae.d_sae, dtype=torch.long)
    state["latents_activation_frequency"] = torch.ones(sae.d_sae)
    state["latents_mean_square"] = torch.zeros(sae.d_sae)
    state["activation"] = "TopK" if sae.k else "ReLU"
    state["activation_state_dict"] = {"k": sae.k, "postact_fn": "ReLU"} if sae.k else {}
    with whole_file(folder / WEIGHTS) as partial:
        torch.save(state, partial)
    write_json(folder / CONFIG, {"audio": sae.info.to_dict()})

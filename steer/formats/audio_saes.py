"""Files of two projects that train SAEs on Whisper: ksadov/FREUD and omarkhursheed/whisper-sae."""

from __future__ import annotations

import re
import warnings
from typing import Any

import torch
from torch.nn.functional import normalize

from steer.errors import SAEError
from steer.formats.assemble import assemble, taken
from steer.formats.checkpoint import Checkpoint, plain
from steer.sae import SAE, SAEInfo

ENCODER = {"W_enc": "encoder.weight", "b_enc": "encoder.bias"}


class Freud:
    """`.pth` of {"hparams", "model", ...}: L1 with one matrix for both ways, or top-k."""

    @staticmethod
    def knows(checkpoint: Checkpoint) -> bool:
        return {"hparams", "model"} <= checkpoint.state.keys() or "encoder_bias" in checkpoint.state

    @staticmethod
    def build(checkpoint: Checkpoint) -> SAE:
        """Raises SAEError for tensors that are neither of the two, or a k that is not known."""
        name, hparams = checkpoint.name, part(checkpoint, "hparams")
        state = part(checkpoint, "model") or checkpoint.state
        whisper = hparams.get("whisper_config")
        whisper = whisper if isinstance(whisper, dict) else {}
        layer = re.fullmatch(r"encoder\.blocks\.(\d+)", str(whisper.get("layer_name")))
        info = SAEInfo(
            model=f"whisper:{whisper['model']}" if whisper.get("model") else "",
            site=f"encoder.{layer[1]}" if layer else "",
            extra={"format": "FREUD", "hparams": plain(hparams)},
        )
        if "encoder_bias" in state:
            # its encode sets the columns to length 1 before it uses them
            W_enc_DF = normalize(taken(state, {"W_dec": "decoder.weight"}, name)["W_dec"].T, dim=0)
            tensors = {"W_enc": W_enc_DF, "W_dec": W_enc_DF.T, "b_enc": state["encoder_bias"]}
            tensors["b_dec"] = torch.zeros(len(W_enc_DF))
            return assemble(name, "relu", tensors, center=False, info=info)
        tensors = taken(state, ENCODER | {"W_dec": "W_dec", "b_dec": "b_dec"}, name)
        options = hparams.get("autoencoder_config") or hparams.get("topk_params")
        k = checkpoint.k or (options.get("k") if isinstance(options, dict) else None)
        if k is None:
            k = 32
            warnings.warn(
                f"{name}: the file does not say k, how many features each frame has: 32 is taken, the default of "
                "FREUD's config; pass k if it was trained with another",
                stacklevel=2,
            )
        return assemble(name, "topk", tensors, k, info=info)


class WhisperSAE:
    """`.pt` of {"model_state_dict", "config", ...}, or the state dict alone: top-k with two biases, or relu.

    Every layer's activations went through the encoder's last layer norm before its SAE saw them, so it belongs to no
    site of ours as it is: none is set, and the layer is in `info.extra`.
    """

    @staticmethod
    def knows(checkpoint: Checkpoint) -> bool:
        return "model_state_dict" in checkpoint.state or "b_pre" in checkpoint.state

    @staticmethod
    def build(checkpoint: Checkpoint) -> SAE:
        """Raises SAEError for tensors that do not fit, or a k that the file does not say (some of its files do not)."""
        name, config = checkpoint.name, part(checkpoint, "config") | checkpoint.config
        state = part(checkpoint, "model_state_dict") or checkpoint.state
        names = ENCODER | {"W_dec": "decoder.weight", "b_dec": "decoder.bias"}
        info = SAEInfo(
            extra={"format": "whisper-sae", "after": "the encoder's last layer norm", "config": plain(config)}
        )
        if "b_pre" not in state:
            return assemble(name, "relu", taken(state, names, name), center=False, info=info)
        tensors = taken(state, names | {"b_pre": "b_pre"}, name)
        k = checkpoint.k or config.get("k")
        if k is None:
            raise SAEError(f"{name}: the file does not say k, how many features each frame has; pass k")
        if tensors["b_pre"].shape != tensors["b_dec"].shape or tensors["W_enc"].shape[0] != len(tensors["b_pre"]):
            raise SAEError(f"{name}: b_pre is {list(tensors['b_pre'].shape)}, W_enc {list(tensors['W_enc'].shape)}")
        # b_pre is subtracted from the input, both biases are added to the output
        tensors["b_enc"] = tensors["b_enc"] - tensors["b_pre"] @ tensors["W_enc"]
        tensors["b_dec"] = tensors["b_dec"] + tensors["b_pre"]
        return assemble(name, "topk", tensors, k, center=False, info=info)


def part(checkpoint: Checkpoint, key: str) -> dict[str, Any]:
    """A dict inside the file; {} where there is none."""
    value = checkpoint.state.get(key)
    if value is not None and not isinstance(value, dict):
        raise SAEError(f"{checkpoint.name}: {key} is not a dict but {type(value).__name__}")
    return dict(value or {})

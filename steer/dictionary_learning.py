"""Folders of the package dictionary_learning (`ae.pt`, `config.json`), as AudioSAE published its SAEs: read only.

AudioSAE (arXiv 2602.05027; Hugging Face `Egorgij21/Audio-SAE-*`) has a folder `layer_N` for each encoder layer, counted
from 1: `layer_1` belongs to our site `encoder.0`. Its BatchTopK SAEs come without the threshold that stands for the
batch. `relu` in its place would let everything positive through, so they run as top-k, k features for each vector, and
a warning says so.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steer.errors import SAEError
from steer.sae import SAE, SAEInfo

WEIGHTS, CONFIG = "ae.pt", "config.json"
CLASSES = {"AutoEncoderTopK": "topk", "BatchTopKSAE": "batchtopk"}
TENSORS = ("encoder.weight", "encoder.bias", "decoder.weight", "b_dec")


def load_folder(folder: Path) -> SAE:
    """A top-k or BatchTopK SAE in fp32.

    Raises:
        SAEError: a damaged file, one that holds more than tensors, another kind of dictionary, or shapes or a k that do
            not fit.
    """
    config = read_config(folder / CONFIG)
    state = read_tensors(folder / WEIGHTS)
    kind = config.get("dict_class", "BatchTopKSAE")
    if kind not in CLASSES:
        raise SAEError(f"{folder}: a dictionary of class {kind!r} is not supported; there are {', '.join(CLASSES)}")
    missing = [name for name in TENSORS if name not in state]
    if missing:
        raise SAEError(f"{folder / WEIGHTS}: tensors are missing: {', '.join(missing)}")
    if state["encoder.weight"].ndim != 2:
        raise SAEError(f"{folder / WEIGHTS}: encoder.weight is {list(state['encoder.weight'].shape)}, not [F, D]")
    k = int(state["k"]) if "k" in state else config.get("k")
    # the key says how it lies: [F, D], whichever is larger
    d_sae, d_in = state["encoder.weight"].shape
    threshold = float(state.get("threshold", -1))
    activation = CLASSES[kind]
    if activation == "batchtopk" and threshold < 0:
        activation = "topk"
        warnings.warn(
            f"{folder}: a BatchTopK SAE without its threshold; it runs as top-k, {k} features for each frame",
            stacklevel=2,
        )
    sae = SAE(d_in, d_sae, activation, k, info=about(folder, config))
    given = {
        "W_enc": state["encoder.weight"].T,
        "b_enc": state["encoder.bias"],
        "W_dec": state["decoder.weight"].T,
        "b_dec": state["b_dec"],
    }
    if activation == "batchtopk":
        given["threshold"] = torch.full((d_sae,), threshold)
    for name, value in given.items():
        weight = getattr(sae, name)
        if value.shape != weight.shape:
            raise SAEError(f"{folder / WEIGHTS}: {name} is {list(value.shape)}, and {list(weight.shape)} is needed")
        if not torch.isfinite(value).all():
            raise SAEError(f"{folder / WEIGHTS}: weights are not finite")
        weight.data = value.float().contiguous()
    return sae.eval().requires_grad_(False)


def read_config(path: Path) -> dict[str, Any]:
    """What is said of the trainer, or an empty dict without a file."""
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return dict(config.get("trainer", config))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise SAEError(f"{path}: damaged file ({error})") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict; torch refuses to make anything but tensors and plain values out of the file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("ae", state)  # a backup of a training
        return {name: torch.as_tensor(value) for name, value in state.items()}
    except pickle.UnpicklingError as error:
        raise SAEError(f"{path}: holds more than tensors, and is not loaded for safety's sake") from error
    except Exception as error:  # torch raises a dozen kinds for damaged files
        raise SAEError(f"{path}: damaged file ({str(error).splitlines()[0]})") from error


def about(folder: Path, config: dict[str, Any]) -> SAEInfo:
    """The site of a folder `layer_N`, and the rest as the config has it."""
    layer = re.fullmatch(r"layer_(\d+)", folder.resolve().name)
    site = f"encoder.{int(layer[1]) - 1}" if layer and int(layer[1]) else ""
    return SAEInfo(site=site, extra={"format": "dictionary_learning", "config": config})

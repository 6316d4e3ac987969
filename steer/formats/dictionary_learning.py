"""Folders of the package dictionary_learning (`ae.pt`, `config.json`), as AudioSAE published its SAEs.

AudioSAE (arXiv 2602.05027; Hugging Face `Egorgij21/Audio-SAE-*`) has a folder `layer_N` for each encoder layer, counted
from 1: `layer_1` belongs to our site `encoder.0`. Its BatchTopK SAEs come without the threshold that stands for the
batch. `relu` in its place would let everything positive through, so they run as top-k, k features for each vector, and
a warning says so.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hooks.files import whole_file, write_json
from steer.errors import SAEError
from steer.formats.assemble import assemble, check_sizes, info_of, only_plain, taken, tensors_as, without_threshold
from steer.formats.checkpoint import Checkpoint, plain
from steer.sae import SAE, SAEInfo

WEIGHTS, CONFIG = "ae.pt", "config.json"
LINEAR = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight"}
PLAIN = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
GATED = {"b_enc": "gate_bias", "b_mag": "mag_bias", "r_mag": "r_mag", "b_dec": "decoder_bias"}
CLASSES: dict[str, tuple[str, dict[str, str], bool]] = {
    # the activation, their names of our tensors, whether the input is centred
    "AutoEncoder": ("relu", LINEAR | {"b_dec": "bias"}, True),
    "AutoEncoderNew": ("relu", LINEAR | {"b_dec": "decoder.bias"}, False),
    "GatedAutoEncoder": ("gated", {"W_enc": "encoder.weight", "W_dec": "decoder.weight"} | GATED, True),
    "JumpReluAutoEncoder": ("jumprelu", PLAIN | {"threshold": "threshold"}, False),
    "AutoEncoderTopK": ("topk", LINEAR | {"b_dec": "b_dec"}, True),
    "BatchTopKSAE": ("batchtopk", LINEAR | {"b_dec": "b_dec"}, True),
    "MatryoshkaBatchTopKSAE": ("batchtopk", PLAIN, True),
}
WRITTEN_AS = {
    "relu": "AutoEncoderNew",
    "topk": "AutoEncoderTopK",
    "gated": "GatedAutoEncoder",
    "batchtopk": "BatchTopKSAE",
    "jumprelu": "JumpReluAutoEncoder",
}
TELLING = {  # a key that only one class has, where no config names the class
    "group_sizes": "MatryoshkaBatchTopKSAE",
    "W_enc": "JumpReluAutoEncoder",
    "decoder_bias": "GatedAutoEncoder",
    "bias": "AutoEncoder",
    "decoder.bias": "AutoEncoderNew",
    "b_dec": "BatchTopKSAE",
}


def knows(checkpoint: Checkpoint) -> bool:
    state = checkpoint.state
    return "dict_class" in trainer(checkpoint) or "ae" in state or "encoder.weight" in state or "threshold" in state


def trainer(checkpoint: Checkpoint) -> dict[str, Any]:
    """What is said of the training: in config.json, flat in some, or in a backup."""
    said = checkpoint.section("trainer") or checkpoint.config
    backup = checkpoint.state.get("config")
    return said or (backup if isinstance(backup, dict) else {})


def build(checkpoint: Checkpoint) -> SAE:
    """Raises SAEError for another kind of dictionary, and for tensors or a k that do not fit."""
    name, said, state = checkpoint.name, trainer(checkpoint), checkpoint.state
    backup = state if isinstance(state.get("ae"), dict) else {}
    state = backup.get("ae", state)
    kind = said.get("dict_class") or next((kind for key, kind in TELLING.items() if key in state), "BatchTopKSAE")
    if kind not in CLASSES:
        raise SAEError(f"{name}: a dictionary of class {kind!r} is not supported; there are {', '.join(CLASSES)}")
    activation, names, center = CLASSES[kind]
    tensors = taken(state, names, name)
    check_sizes(tensors, said.get("activation_dim"), said.get("dict_size"), name)
    # how this class encodes can be set on the module only
    center = bool(said.get("apply_b_dec_to_input", center))
    k = checkpoint.k or state.get("k", said.get("k"))
    if activation == "batchtopk":
        threshold = torch.as_tensor(state.get("threshold", -1.0)).float().reshape(-1)[:1]
        if threshold.ge(0).all() and len(threshold):
            tensors["threshold"] = threshold.expand(len(tensors["b_enc"]))
        else:
            activation = without_threshold(name, None if k is None else int(k))
    if backup.get("norm_factor"):
        scale_biases(tensors, backup["norm_factor"], name)
    if kind == "AutoEncoder" and checkpoint.folder is not None:
        unit_decoder(tensors)
    return assemble(name, activation, tensors, k, center=center, info=about(checkpoint, said))


def scale_biases(tensors: dict[str, Tensor], factor: Any, name: str) -> None:
    """A backup is of an SAE in training, on activations divided by `factor`; at the end the package does this to it."""
    if not isinstance(factor, int | float) or not 0 < factor < float("inf"):
        raise SAEError(f"{name}: norm_factor is {factor!r}, not a number above 0")
    for key in ("b_enc", "b_mag", "b_dec", "threshold"):
        if key in tensors:
            tensors[key] = tensors[key] * factor


def unit_decoder(tensors: dict[str, Tensor]) -> None:
    """Decoder rows of length 1, with the features made up for it: the package does this to an AutoEncoder it opens."""
    norm_F = tensors["W_dec"].norm(dim=1)
    if tensors["W_enc"].ndim != 2 or len(norm_F) != tensors["W_enc"].shape[1] or len(tensors["b_enc"]) != len(norm_F):
        return  # assemble says what does not fit
    norm_F = torch.where(norm_F > 0, norm_F, 1)
    if not torch.allclose(norm_F, torch.ones_like(norm_F)):
        tensors["W_enc"], tensors["b_enc"] = tensors["W_enc"] * norm_F, tensors["b_enc"] * norm_F
        tensors["W_dec"] = tensors["W_dec"] / norm_F[:, None]


def about(checkpoint: Checkpoint, said: dict[str, Any]) -> SAEInfo:
    """What we wrote ourselves; otherwise the site of a folder `layer_N`, and the rest as the config has it."""
    audio = checkpoint.section("audio")
    if audio:
        return info_of(audio, checkpoint.name)
    layer = re.fullmatch(r"layer_(\d+)", checkpoint.folder.resolve().name) if checkpoint.folder else None
    site = f"encoder.{int(layer[1]) - 1}" if layer and int(layer[1]) else ""
    return SAEInfo(site=site, extra={"format": "dictionary_learning", "config": plain(said)})


def save(sae: SAE, folder: Path) -> None:
    """Write an SAE as its `load_dictionary` opens it.

    relu becomes an AutoEncoderNew, because AutoEncoder's features change in loading; thresholds that differ from
    feature to feature make a JumpReluAutoEncoder.
    """
    only_plain(sae, "dictionary_learning")
    kind = WRITTEN_AS.get(sae.activation)
    if kind is None:
        raise SAEError(f"dictionary_learning has no {sae.activation} SAEs: this one cannot be written for it")
    if kind == "BatchTopKSAE" and not sae.threshold.eq(sae.threshold[0]).all():
        kind = "JumpReluAutoEncoder"
    _, names, center = CLASSES[kind]
    state = tensors_as(names, sae, center)
    if kind in ("AutoEncoderTopK", "BatchTopKSAE"):
        state["k"] = torch.tensor(sae.k, dtype=torch.int)
        state["threshold"] = sae.threshold[0].detach().cpu() if kind == "BatchTopKSAE" else torch.tensor(-1.0)
    said = {"dict_class": kind, "activation_dim": sae.d_in, "dict_size": sae.d_sae, "k": sae.k}
    said |= {"lm_name": sae.info.model, "submodule_name": sae.info.site}
    config = {"trainer": said, "buffer": {}, "audio": sae.info.to_dict()}
    with whole_file(folder / WEIGHTS) as partial:
        torch.save(state, partial)
    write_json(folder / CONFIG, config)

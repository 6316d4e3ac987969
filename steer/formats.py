"""SAE files: SAELens's folder (`cfg.json`, `sae_weights.safetensors`), with an `audio` section of ours in the cfg.

SAELens (6.x) opens what is written here and gives the same features: topk, jumprelu, gated and standard (relu). A
batchtopk SAE is written as jumprelu with the threshold that its training learned, as SAELens itself does. SAEs with
RMS-normalised features get an architecture name of ours, which SAELens refuses rather than reads wrongly. Nothing is
ever unpickled. Folders of other packages are told by their files: see `steer.dictionary_learning`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hooks.errors import require
from hooks.files import whole_file
from steer import dictionary_learning
from steer.errors import SAEError
from steer.sae import SAE, SAEInfo

CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
ARCHITECTURES = {"relu": "standard", "topk": "topk", "batchtopk": "jumprelu", "jumprelu": "jumprelu", "gated": "gated"}
RMS_ARCHITECTURE = "audiosteer_rms_"
TENSORS = {
    "standard": ("W_enc", "b_enc", "W_dec", "b_dec"),
    "topk": ("W_enc", "b_enc", "W_dec", "b_dec"),
    "jumprelu": ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"),
    "gated": ("W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag"),
}
SCHEMES: dict[str, Callable[[str], Path]] = {}
"""Prefixes that stand for a folder, as in `starter:codec/latent`."""


def save_sae(sae: SAE, folder: str | Path, dtype: torch.dtype | None = None) -> Path:
    """Write an SAE as a folder that SAELens opens; `dtype` (say torch.float16) is that of the weights on disk.

    Raises:
        SAEError: the folder cannot be written.
    """
    folder = Path(folder)
    architecture = ARCHITECTURES[sae.activation]
    state = {name: value.detach().cpu() for name, value in sae.state_dict().items()}
    if architecture == "gated":
        state["b_gate"] = state.pop("b_enc")
    dtype = dtype or sae.W_enc.dtype
    cfg: dict[str, Any] = {
        "architecture": RMS_ARCHITECTURE + architecture if sae.rms_norm else architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": str(dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": sae.center,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"model_name": sae.info.model, "hook_name": sae.info.site},
        "audio": {"activation": sae.activation, **sae.info.to_dict()},
    }
    if sae.k is not None:
        cfg["audio"]["k"] = sae.k
        if architecture == "topk":
            cfg |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # a threshold decides by a strict comparison: it keeps full precision
        weights = {
            name: (value if name == "threshold" else value.to(dtype)).contiguous() for name, value in state.items()
        }
        with whole_file(folder / WEIGHTS) as partial:
            save_file(weights, partial)
        with whole_file(folder / CFG) as partial:
            partial.write_text(json.dumps(cfg, indent=2) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise SAEError(f"{folder}: the SAE could not be written ({error})") from error
    return folder


def find_folder(source: str | Path) -> Path:
    """The folder that a path, `starter:codec/latent` or a hub id (`hf:owner/name/sub/folder@revision`) stands for.

    Raises:
        SAEError: there is none, or it cannot be downloaded.
    """
    text = str(source)
    if Path(text).exists():
        return Path(text).parent if Path(text).is_file() else Path(text)
    scheme, _, rest = text.partition(":")
    if scheme in SCHEMES:
        return SCHEMES[scheme](rest)
    if scheme == "hf" and rest.count("/") >= 1:
        name, _, revision = rest.partition("@")
        owner, repository, *inner = name.split("/")
        hub = require("huggingface_hub", "all")
        try:
            patterns = ["/".join([*inner, "*"])] if inner else None
            root = hub.snapshot_download(f"{owner}/{repository}", revision=revision or None, allow_patterns=patterns)
        except Exception as error:  # the hub raises its own, httpx's and OS errors
            raise SAEError(
                f"{text}: could not be downloaded ({str(error).splitlines()[0]}); check name, revision and network"
            ) from error
        return Path(root, *inner)
    raise SAEError(f"there is no SAE {text!r}: pass a folder, starter:codec/latent, or hf:owner/name/folder@revision")


def load_sae(source: str | Path) -> SAE:
    """Load an SAE in fp32.

    Raises:
        SAEError: nothing is there, files are missing or damaged, tensors do not fit the cfg, or the cfg asks for
            something that would change the features and is not supported.
    """
    folder = find_folder(source)
    if (folder / dictionary_learning.WEIGHTS).is_file():
        return dictionary_learning.load_folder(folder)
    path, weights = folder / CFG, folder / WEIGHTS
    for needed in (path, weights):
        if not needed.is_file():
            raise SAEError(f"{source}: no {needed.name} in {folder}")
    try:
        cfg = json.loads(path.read_text(encoding="utf-8"))
        state = {name: value.float() for name, value in load_file(weights).items()}
    except (ValueError, OSError, SafetensorError) as error:
        raise SAEError(f"{source}: damaged file ({error})") from error
    if not isinstance(cfg, dict):
        raise SAEError(f"{path}: not a JSON object")
    return build_sae(cfg, state, str(source))


def build_sae(cfg: dict[str, Any], state: dict[str, Tensor], name: str) -> SAE:
    """An SAE from a SAELens cfg and state dict."""
    written = str(cfg.get("architecture", ""))
    architecture = written.removeprefix(RMS_ARCHITECTURE)
    if architecture not in TENSORS:
        raise SAEError(f"{name}: architecture {written!r} is not supported; there are {', '.join(TENSORS)}")
    for key in ("normalize_activations", "reshape_activations"):
        if cfg.get(key, "none") not in ("none", None):
            raise SAEError(f"{name}: {key} = {cfg[key]!r} is not folded into the weights; fold it first")
    if cfg.get("rescale_acts_by_decoder_norm"):
        norms = state["W_dec"].norm(dim=1) if "W_dec" in state else torch.ones(1)
        if not torch.allclose(norms, torch.ones_like(norms), atol=1e-3):
            raise SAEError(f"{name}: rescale_acts_by_decoder_norm needs decoder rows of length 1; fold the norms first")
    missing = [tensor for tensor in TENSORS[architecture] if tensor not in state]
    if missing:
        raise SAEError(f"{name}: tensors are missing: {', '.join(missing)}")
    shape = tuple(state["W_enc"].shape)
    if len(shape) != 2 or shape != (cfg.get("d_in", shape[0]), cfg.get("d_sae", shape[1])):
        raise SAEError(
            f"{name}: cfg says {cfg.get('d_in')} x {cfg.get('d_sae')}, W_enc is {' x '.join(map(str, shape))}"
        )
    d_in, d_sae = shape
    audio = dict(cfg.get("audio") or {})
    metadata = cfg.get("metadata") or {}
    default = {"standard": "relu"}.get(architecture, architecture)
    about: dict[str, Any] = {"model": metadata.get("model_name") or "", "site": metadata.get("hook_name") or ""}
    about |= {field.name: audio[field.name] for field in fields(SAEInfo) if field.name in audio}
    sae = SAE(
        d_in,
        d_sae,
        audio.get("activation", default),
        cfg.get("k") or audio.get("k"),
        rms_norm=written.startswith(RMS_ARCHITECTURE),
        center=bool(cfg.get("apply_b_dec_to_input", True)),
        info=SAEInfo(**about),
    )
    if architecture == "gated":
        state["b_enc"] = state.pop("b_gate")
    kept = {key: value for key, value in state.items() if key in sae.state_dict()}
    try:
        sae.load_state_dict(kept)
    except RuntimeError as error:
        raise SAEError(f"{name}: {str(error).splitlines()[-1].strip()}") from error
    if not all(torch.isfinite(value).all() for value in kept.values()):
        raise SAEError(f"{name}: weights are not finite")
    return sae.eval().requires_grad_(False)

"""SAELens's folder (`cfg.json`, `sae_weights.safetensors`), with an `audio` section of ours in the cfg: our own format.

SAELens (6.x) opens what is written here and gives the same features: topk, jumprelu, gated and standard (relu). A
batchtopk SAE is written as jumprelu with the threshold that its training learned, as SAELens itself does. SAEs with
RMS-normalised features or another activation get an architecture name of ours, which SAELens refuses rather than reads
wrongly.

Read are its inference files since 6.0, the flat cfg before that, and training checkpoints. What SAELens would do to the
activations at run time by a constant is folded into the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hooks.files import UNWRITABLE, write_json, write_tensors
from steer.errors import SAEError
from steer.formats.assemble import assemble, check_sizes, info_of, without_threshold
from steer.formats.checkpoint import Checkpoint, read_json, read_weights
from steer.normalize import NORMALIZATIONS
from steer.sae import SAE, SAEInfo

CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
WRITTEN_AS = {"relu": "standard", "topk": "topk", "batchtopk": "jumprelu", "jumprelu": "jumprelu", "gated": "gated"}
READ_AS = {
    "standard": "relu",
    "topk": "topk",
    "jumprelu": "jumprelu",
    "gated": "gated",
    "batchtopk": "batchtopk",  # these two only in checkpoints of a training
    "matryoshka_batchtopk": "batchtopk",
}
ARCHITECTURE, RMS_ARCHITECTURE = "audiosteer_", "audiosteer_rms_"
"""Heads of the names of what SAELens does not have: other activations, and RMS-normalised features."""
BIASES = ("latent_bias", "decoder_bias")
"""Of an SAE that is without one the section `audio` says so."""
CFG_KEYS = {"architecture", "d_sae", "hook_name", "hook_point", "activation_fn_str"}


def save_sae(sae: SAE, folder: str | Path, dtype: torch.dtype | None = None) -> Path:
    """Write an SAE as a folder that SAELens opens; `dtype` (say torch.float16) is that of the weights on disk.

    Raises:
        SAEError: the folder cannot be written.
    """
    folder = Path(folder)
    architecture = WRITTEN_AS.get(sae.activation, sae.activation)
    ours = RMS_ARCHITECTURE if sae.rms_norm else "" if sae.activation in WRITTEN_AS else ARCHITECTURE
    state = sae.state_dict()
    if architecture == "gated":
        state["b_gate"] = state.pop("b_enc")
    dtype = dtype or sae.W_enc.dtype
    cfg: dict[str, Any] = {
        "architecture": ours + architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": str(dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": sae.center,
        "normalize_activations": sae.normalize or "none",
        "reshape_activations": "none",
        "metadata": {"model_name": sae.info.model, "hook_name": sae.info.site},
        "audio": {"activation": sae.activation, **sae.info.to_dict()},
    }
    cfg["audio"] |= {bias: False for bias in BIASES if not getattr(sae, bias)}
    if sae.k is not None:
        cfg["audio"]["k"] = sae.k
        if architecture == "topk":
            cfg |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # a threshold decides by a strict comparison: it keeps full precision
        weights = {name: value if name == "threshold" else value.to(dtype) for name, value in state.items()}
        write_tensors(folder / WEIGHTS, weights)
        write_json(folder / CFG, cfg)
    except UNWRITABLE as error:
        raise SAEError(f"{folder}: the SAE could not be written ({error})") from error
    return folder


def knows(checkpoint: Checkpoint) -> bool:
    return "W_enc" in checkpoint.state and bool(CFG_KEYS & checkpoint.config.keys())


def build(checkpoint: Checkpoint) -> SAE:
    """Raises SAEError for an architecture or a normalisation that is not known, and for tensors that do not fit."""
    name, cfg = checkpoint.name, modern(checkpoint.config, checkpoint.name)
    written = str(cfg.get("architecture", ""))
    architecture = written.removeprefix(RMS_ARCHITECTURE).removeprefix(ARCHITECTURE)
    if architecture not in READ_AS and not written.startswith(ARCHITECTURE):
        raise SAEError(f"{name}: architecture {written!r} is not supported; there are {', '.join(READ_AS)}")
    if cfg.get("reshape_activations", "none") not in ("none", None):
        raise SAEError(f"{name}: reshape_activations = {cfg['reshape_activations']!r} is not supported")
    activation, tensors = READ_AS.get(architecture, architecture), dict(checkpoint.state)
    if activation == "gated":
        tensors["b_enc"] = tensors.pop("b_gate", None)
    needed = [key for key in ("W_enc", "b_enc", "W_dec", "b_dec") if not isinstance(tensors.get(key), Tensor)]
    if needed:
        raise SAEError(f"{name}: tensors are missing: {', '.join(needed)}")
    check_sizes(tensors, cfg.get("d_in"), cfg.get("d_sae"), name)
    tensors = {key: value.float() for key, value in tensors.items() if isinstance(value, Tensor)}
    audio, k = checkpoint.section("audio"), cfg.get("k")
    if WRITTEN_AS.get(str(audio.get("activation"))) == architecture:
        activation = audio["activation"]
    k = audio.get("k") if k is None else k
    if "log_threshold" in tensors:
        tensors["threshold"] = tensors["log_threshold"].exp()
    if "topk_threshold" in tensors:
        tensors["threshold"] = tensors["topk_threshold"].reshape(-1)[:1].expand(len(tensors["W_dec"]))
        k = max(1, round(float(k or 1)))
        if not tensors["threshold"][:1].gt(0).all():  # a training begins at 0
            activation = without_threshold(name, k)
    normalize = fold(tensors, cfg, checkpoint)
    return assemble(
        name,
        activation,
        tensors,
        checkpoint.k or k,
        center=bool(cfg.get("apply_b_dec_to_input", True)),
        normalize=normalize,
        rms_norm=written.startswith(RMS_ARCHITECTURE),
        **{bias: audio.get(bias) is not False for bias in BIASES},
        info=about(checkpoint, cfg, audio),
    )


def about(checkpoint: Checkpoint, cfg: dict[str, Any], audio: dict[str, Any]) -> SAEInfo:
    metadata = checkpoint.section("metadata") or cfg
    found: dict[str, Any] = {"model": metadata.get("model_name") or "", "site": metadata.get("hook_name") or ""}
    return info_of(found | audio, checkpoint.name)


def modern(cfg: dict[str, Any], name: str) -> dict[str, Any]:
    """A flat cfg of before 6.0 in the words of 6.0; a newer one as it is."""
    cfg = dict(cfg)
    if "metadata" in cfg or "audio" in cfg:
        return cfg
    cfg.setdefault("hook_name", cfg.get("hook_point"))
    cfg.setdefault("architecture", "standard")
    function = cfg.get("activation_fn_str") or cfg.get("activation_fn") or "relu"
    options = cfg.get("activation_fn_kwargs")
    if function == "topk":
        cfg["architecture"] = "topk"
        cfg["k"] = options.get("k") if isinstance(options, dict) else cfg.get("k")
    elif function != "relu":
        raise SAEError(f"{name}: activation {function!r} is not supported")
    if isinstance(cfg.get("normalize_activations"), bool):
        cfg["normalize_activations"] = "expected_average_only_in" if cfg["normalize_activations"] else "none"
    if "reshape_activations" not in cfg and "hook_z" in str(cfg["hook_name"]):
        cfg["reshape_activations"] = "hook_z"
    return cfg


def fold(tensors: dict[str, Tensor], cfg: dict[str, Any], checkpoint: Checkpoint) -> str | None:
    """Fold into the tensors what the cfg says is done besides; the normalisation of single vectors that remains.

    Raises:
        SAEError: a constant normalisation whose constants are not beside the weights.
    """
    name, rescaled = checkpoint.name, bool(cfg.get("rescale_acts_by_decoder_norm"))
    if "scaling_factor" in tensors and not tensors["scaling_factor"].eq(1).all():
        if not cfg.get("finetuning_scaling_factor"):
            raise SAEError(f"{name}: it has scaling factors, and its cfg does not say that they are used")
        tensors["W_dec"] = tensors["W_dec"] * tensors["scaling_factor"][:, None]
    normalize = cfg.get("normalize_activations") or "none"
    if normalize == "expected_average_only_in":
        scale = scaling_factor(checkpoint)
        tensors["W_enc"] = tensors["W_enc"] * scale
        tensors["W_dec"], tensors["b_dec"] = tensors["W_dec"] / scale, tensors["b_dec"] / scale
        if rescaled and "topk_threshold" in tensors:
            # the threshold is compared with features times the decoder's norm, which has just shrunk
            tensors["threshold"] = tensors["threshold"] / scale
    if rescaled:
        norm_F = tensors["W_dec"].norm(dim=1).clamp(min=1e-8)
        tensors["W_enc"], tensors["b_enc"] = tensors["W_enc"] * norm_F, tensors["b_enc"] * norm_F
        tensors["W_dec"] = tensors["W_dec"] / norm_F[:, None]
    if normalize == "covariance_whitening":
        fold_whitening(tensors, bool(cfg.get("apply_b_dec_to_input", True)), checkpoint)
    elif normalize not in ("none", "expected_average_only_in", *NORMALIZATIONS):
        raise SAEError(f"{name}: normalize_activations = {normalize!r} is not supported")
    return normalize if normalize in NORMALIZATIONS else None


def scaling_factor(checkpoint: Checkpoint) -> float:
    """The factor that a training wrote beside its checkpoint: activations were multiplied by it."""
    path = checkpoint.folder / SCALER if checkpoint.folder else None
    scale = read_json(path).get("scaling_factor") if path and path.is_file() else None
    if not isinstance(scale, int | float) or not 0 < scale < float("inf"):
        raise SAEError(
            f"{checkpoint.name}: normalize_activations = 'expected_average_only_in' is not folded into the weights, "
            f"and no {SCALER} says the factor; fold it first (fold_activation_norm_scaling_factor in SAELens)"
        )
    return float(scale)


def fold_whitening(tensors: dict[str, Tensor], center: bool, checkpoint: Checkpoint) -> None:
    """The SAE was trained on (x - mean) M; the same on x."""
    path = checkpoint.folder / WHITENING if checkpoint.folder else None
    if path is None or not path.is_file():
        raise SAEError(
            f"{checkpoint.name}: normalize_activations = 'covariance_whitening', and there is no {WHITENING}"
        )
    found = {key: value.float() for key, value in read_weights(path).items()}
    missing = [key for key in ("mean", "matrix", "inverse_matrix") if key not in found]
    if missing:
        raise SAEError(f"{path}: tensors are missing: {', '.join(missing)}")
    tensors["W_enc"] = found["matrix"] @ tensors["W_enc"]
    if not center:
        shift_F = found["mean"] @ tensors["W_enc"]
        tensors["b_enc"] = tensors["b_enc"] - shift_F
        if "b_mag" in tensors:
            tensors["b_mag"] = tensors["b_mag"] - shift_F * tensors["r_mag"].exp()
    tensors["W_dec"] = tensors["W_dec"] @ found["inverse_matrix"]
    tensors["b_dec"] = tensors["b_dec"] @ found["inverse_matrix"] + found["mean"]

"""Folders of EleutherAI's sparsify (`cfg.json`, `sae.safetensors`), one for each hookpoint: top-k SAEs."""

from __future__ import annotations

from pathlib import Path

from hooks.files import write_json, write_tensors
from steer.errors import SAEError
from steer.formats.assemble import assemble, check_sizes, info_of, only_plain, taken, tensors_as
from steer.formats.checkpoint import Checkpoint
from steer.sae import SAE, SAEInfo

CFG, WEIGHTS = "cfg.json", "sae.safetensors"
TENSORS = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "W_dec", "b_dec": "b_dec"}


def knows(checkpoint: Checkpoint) -> bool:
    return {"encoder.weight", "W_dec"} <= checkpoint.state.keys()


def build(checkpoint: Checkpoint) -> SAE:
    """Raises SAEError for a transcoder, an activation other than topk, and tensors or a k that do not fit."""
    name, cfg = checkpoint.name, checkpoint.config
    if cfg.get("transcode") or cfg.get("skip_connection") or "W_skip" in checkpoint.state:
        raise SAEError(f"{name}: a transcoder, which predicts another activation than it reads, is no SAE of a site")
    activation = cfg.get("activation", "topk")
    if activation != "topk" or cfg.get("signed"):
        raise SAEError(f"{name}: activation {'signed ' if cfg.get('signed') else ''}{activation!r} is not supported")
    tensors = taken(checkpoint.state, TENSORS, name)
    check_sizes(tensors, cfg.get("d_in"), cfg.get("num_latents") or None, name)
    audio = checkpoint.section("audio")
    info = info_of(audio, name)
    if not audio:
        hookpoint = checkpoint.folder.resolve().name if checkpoint.folder else ""
        info = SAEInfo(extra={"format": "sparsify", "hookpoint": hookpoint})
    return assemble(name, "topk", tensors, checkpoint.k or cfg.get("k"), info=info)


def save(sae: SAE, folder: Path) -> None:
    """Write a top-k SAE as its `SparseCoder.load_from_disk` opens it; raises SAEError for any other."""
    only_plain(sae, "sparsify")
    if sae.activation != "topk":
        raise SAEError(f"sparsify has top-k SAEs only: one with {sae.activation} cannot be written for it")
    cfg = {
        "activation": "topk",
        "expansion_factor": max(1, sae.d_sae // sae.d_in),
        "normalize_decoder": False,
        "num_latents": sae.d_sae,
        "k": sae.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": sae.d_in,
        "audio": sae.info.to_dict(),
    }
    write_tensors(folder / WEIGHTS, tensors_as(TENSORS, sae, center=True))
    write_json(folder / CFG, cfg)

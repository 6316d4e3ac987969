"""SAE files of every package: which format a folder, file or module is of is told by its files and keys.

| package | files | read | written |
| --- | --- | --- | --- |
| SAELens, ours | `cfg.json`, `sae_weights.safetensors` | all of one site | all |
| dictionary_learning, AudioSAE | `ae.pt`, `config.json` | all its dictionaries | all but normalised |
| EleutherAI sparsify | `cfg.json`, `sae.safetensors` | top-k | top-k |
| OpenAI sparse_autoencoder | one `.pt` | ReLU, TopK | relu, top-k with layer norm |
| FREUD, whisper-sae | one `.pth`, `.pt` | L1 / ReLU, TopK | |

Which way a matrix lies is told by its key, never by its size. Nothing that a file says is run:
see `hooks.weights`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from hooks.errors import one_line, shortened
from hooks.hub import HubError, snapshot
from hooks.weights import UNREADABLE
from steer.errors import SAEError
from steer.formats import dictionary_learning, openai, sae_lens, sparsify
from steer.formats.audio_saes import Freud, WhisperSAE
from steer.formats.checkpoint import Checkpoint, read_json, read_weights
from steer.formats.sae_lens import CFG, RMS_ARCHITECTURE, WEIGHTS, save_sae
from steer.sae import SAE

SCHEMES: dict[str, Callable[[str], Path]] = {}
"""Prefixes that stand for a folder, as in `starter:codec/latent`."""
FORMATS = (openai, WhisperSAE, Freud, sparsify, sae_lens, dictionary_learning)
"""In the order in which they are asked whether they know a checkpoint."""
FILES = (WEIGHTS, sparsify.WEIGHTS, dictionary_learning.WEIGHTS)
TORCH_FILES = (".pt", ".pth")
CONFIGS = {WEIGHTS: CFG, sparsify.WEIGHTS: sparsify.CFG}
"""Weights that cannot be read without the config beside them."""
SAVERS: dict[str, Callable[[SAE, Path], Any]] = {
    "saelens": save_sae,
    "dictionary_learning": dictionary_learning.save,
    "sparsify": sparsify.save,
    "openai": openai.save,
}


def load_sae(source: str | Path, k: int | None = None) -> SAE:
    """Load an SAE in fp32 from a folder, a file, a hub id or `starter:codec/latent`; `k` for a file that does not say.

    Raises:
        SAEError: nothing is there, files are missing or damaged or hold more than tensors, tensors do not fit the
            config, or it asks for something that would change the features and is not supported.
    """
    path = locate(source)
    weights = path if path.is_file() else weights_in(path)
    config = config_beside(weights)
    return build(Checkpoint(str(weights), read_weights(weights), config, weights.parent, k))


def from_module(module: nn.Module, k: int | None = None) -> SAE:
    """The same SAE as a module of one of these packages, by its state dict and attributes; the module is left alone.

    Raises:
        SAEError: a module of another kind, or one that does what our SAE cannot do.
    """
    if isinstance(module, SAE):
        return module
    state = {name: value for name, value in module.state_dict().items() if value is not None}
    return build(Checkpoint(type(module).__name__, state, described(module), None, k))


def described(module: nn.Module) -> dict[str, Any]:
    """What a module says of itself, in the words of its package's config files."""
    config: dict[str, Any] = {}
    for name in ("cfg", "config", "hp"):
        given: Any = getattr(module, name, None)
        given = given.to_dict() if hasattr(given, "to_dict") else given
        if isinstance(given, Mapping):
            config |= given
    if isinstance(config.get("topk_params"), Mapping):  # FREUD's
        config |= config.pop("topk_params")
    kind = type(module).__name__
    if kind in dictionary_learning.CLASSES and "architecture" not in config:
        config["dict_class"] = kind
    for name in ("k", "normalize", "apply_b_dec_to_input"):
        if hasattr(module, name) and name not in config:
            config[name] = getattr(module, name)
    return config


def build(checkpoint: Checkpoint) -> SAE:
    for known in FORMATS:
        if known.knows(checkpoint):
            try:
                return known.build(checkpoint)
            except UNREADABLE as error:
                # a file may say anything: numbers that are text, lists that are objects, tensors of other shapes
                raise SAEError(f"{checkpoint.name}: what it says makes no sense ({one_line(error)})") from error
    keys = ", ".join(map(str, list(checkpoint.state)[:8])) or "none"
    raise SAEError(f"{checkpoint.name}: an SAE of no known format (it has {keys})")


def write_sae(sae: SAE, folder: str | Path, to: str = "saelens") -> Path:
    """Write an SAE for another package: saelens, dictionary_learning, sparsify or openai.

    Raises:
        SAEError: the package has no such SAE, there is no such package, or the folder cannot be written.
    """
    if to not in SAVERS:
        raise SAEError(f"there is no format {to!r} to write; there are {', '.join(SAVERS)}")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            SAVERS[to](sae, folder)
    except (OSError, SafetensorError) as error:
        raise SAEError(f"{folder}: the SAE could not be written ({error})") from error
    return folder


def weights_in(folder: Path) -> Path:
    """The one file of weights in a folder, by its name, or the only torch file there.

    Raises:
        SAEError: there is none, or it is not clear which.
    """
    if not folder.is_dir():
        raise SAEError(f"{folder}: is neither a file nor a folder")
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    if (folder / CFG).is_file():
        raise SAEError(f"no {WEIGHTS} (or {sparsify.WEIGHTS}) in {folder}")
    found = sorted(path for path in folder.iterdir() if path.suffix in TORCH_FILES)
    if len(found) == 1:
        return found[0]
    if found:
        raise SAEError(f"{folder}: which of {', '.join(path.name for path in found[:8])}? Pass the file")
    inner = sorted(path.name for path in folder.iterdir() if path.is_dir() and any((path / n).is_file() for n in FILES))
    there = f"; there are SAEs in its folders {', '.join(inner[:40])}" if inner else ""
    raise SAEError(f"no SAE in {folder}: no {CFG} with its weights, no {FILES[2]} and no other torch file{there}")


def config_beside(weights: Path) -> dict[str, Any]:
    """The JSON that belongs to a file of weights; {} for a torch file that has none."""
    needed = CONFIGS.get(weights.name)
    if needed:
        return read_json(weights.with_name(needed))
    # dictionary_learning keeps earlier steps in a folder of their own
    folders = [weights.parent, *([weights.parent.parent] if weights.parent.name == "checkpoints" else [])]
    names = ("config.json", CFG, "training_config.json")
    paths = [folder / name for folder in folders for name in names]
    return next((read_json(path) for path in paths if path.is_file()), {})


def find_folder(source: str | Path) -> Path:
    """The folder that a path, `starter:codec/latent` or a hub id (`hf:owner/name/sub/folder@revision`) stands for.

    Raises:
        SAEError: there is none, or it cannot be downloaded.
    """
    path = locate(source)
    return path.parent if path.is_file() else path


def locate(source: str | Path) -> Path:
    """The folder or file that a name stands for; see `find_folder`."""
    text = str(source)
    if os.path.exists(text):
        return Path(text)
    scheme, _, rest = text.partition(":")
    if scheme in SCHEMES:
        return SCHEMES[scheme](rest)
    if scheme == "hf" and rest.count("/") >= 1:
        return downloaded(text, rest)
    raise SAEError(
        f"there is no SAE {shortened(text)!r}: pass a folder, starter:codec/latent, or hf:owner/name/folder@revision"
    )


def downloaded(text: str, rest: str) -> Path:
    """A folder of a hub repository, or one file and the configs beside it; nothing else is fetched."""
    name, _, revision = rest.partition("@")
    owner, repository, *inner = name.split("/")
    if any(part in ("", ".", "..") for part in inner):
        raise SAEError(f"{text}: {name!r} is not a path inside a repository")
    is_file = bool(inner) and Path(inner[-1]).suffix in (*TORCH_FILES, ".safetensors")
    patterns = ["/".join([*inner, "*"])] if inner else None
    if is_file:
        patterns = ["/".join(inner), "/".join([*inner[:-1], "*.json"])]
    try:
        # without a folder, the files at the top: other SAEs may lie in folders
        without = None if inner else ["*/*"]
        root = snapshot(f"{owner}/{repository}", revision or None, only=patterns, without=without)
    except HubError as error:
        raise SAEError(f"{text}: could not be downloaded ({error.reason}); {error.remedy}") from error
    path = Path(root, *inner)
    if not path.exists():
        raise SAEError(f"{text}: the repository has no {'/'.join(inner)}")
    return path


__all__ = [
    "CFG",
    "RMS_ARCHITECTURE",
    "SAVERS",
    "SCHEMES",
    "WEIGHTS",
    "find_folder",
    "from_module",
    "load_sae",
    "save_sae",
    "write_sae",
]

"""Reading SAEs, whatever their format, and writing them: into a folder, for another package, to the hub."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from hooks.errors import AudioSteerError, one_line, require
from hooks.files import UNWRITABLE
from hooks.hub import HubError, explained
from hooks.weights import UNREADABLE
from steer.errors import SAEError
from steer.formats import dictionary_learning, sparsify
from steer.formats.card import CARD, card_of
from steer.formats.checkpoint import Checkpoint, read_json, read_weights
from steer.formats.known import FORMATS, files, writable
from steer.formats.packed import load_part, part_of
from steer.formats.places import TORCH_FILES, downloaded, locate, path_inside
from steer.formats.sae_lens import CFG, WEIGHTS, save_sae
from steer.sae import SAE

log = logging.getLogger(f"audiosteer.{__name__}")


def load_sae(
    source: str | Path,
    k: int | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> SAE:
    """Load an SAE from a folder, a file, a hub id, `starter:codec/latent` or a pack (`FILE.safetensors#SITE`, see
    `steer.packs`); `k` for a file that does not say.

    Raises:
        SAEError: nothing is there, files are missing or damaged or hold more than tensors, tensors do not fit the
            config, or it asks for something that would change the features and is not supported; no such device, or a
            dtype of whole numbers.
    """
    if not dtype.is_floating_point:
        raise SAEError(f"{source}: an SAE computes in a floating-point dtype, not in {dtype}")
    part = part_of(str(source))
    if part is not None:
        return placed(load_part(*part), source, device, dtype)
    path = locate(source)
    weights = path if path.is_file() else weights_in(path)
    config = config_beside(weights)
    return placed(
        build(Checkpoint(str(weights), read_weights(weights), config, weights.parent, k)), source, device, dtype
    )


def placed(sae: SAE, source: str | Path, device: str | torch.device, dtype: torch.dtype) -> SAE:
    """Raises SAEError where there is no such device."""
    log.info("SAE %s: %s", source, sae.extra_repr())
    try:
        return sae.to(device, dtype)
    except (RuntimeError, AssertionError) as error:  # each kind of device has its own
        raise SAEError(f"{source}: cannot be put on device {str(device)!r} ({one_line(error)})") from error


def load_saes(
    folder: str | Path,
    seed: int | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[str, SAE]:
    """All SAEs of a folder that has one in each of its folders, as `steer train` writes them: {site: SAE}.

    The site is what the SAE says, or the folder's name. `seed` picks one where several were trained for each site.

    Raises:
        SAEError: there is none, or several for a site; and as `load_sae`.
    """
    folder, inner = Path(folder), "" if seed is None else f"seed-{seed}"
    found: dict[str, SAE] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if any((path / inner / name).is_file() for name in files()):
            sae = load_sae(path / inner, device=device, dtype=dtype)
            site = sae.info.site or path.name
            if site in found:
                raise SAEError(f"{folder}: holds several SAEs for site {site!r}; load one of them by its own folder")
            found[site] = sae
    if not found:
        seeds = sorted({int(path.name[5:]) for path in folder.glob("*/seed-*") if path.name[5:].isdecimal()})
        there = f"; pass a seed, one of {', '.join(map(str, seeds))}" if seeds else ""
        raise SAEError(f"{folder}: no folder in it holds an SAE{there}")
    return found


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
    for known in FORMATS.all().values():
        if known.knows(checkpoint):
            try:
                return known.build(checkpoint)
            except UNREADABLE as error:
                # a file may say anything: numbers that are text, lists that are objects, tensors of other shapes
                raise SAEError(f"{checkpoint.name}: what it says makes no sense ({one_line(error)})") from error
    keys = ", ".join(map(str, list(checkpoint.state)[:8])) or "none"
    raise SAEError(f"{checkpoint.name}: an SAE of no known format (it has {keys})")


def write_sae(sae: SAE, folder: str | Path, to: str = "saelens") -> Path:
    """Write an SAE for another package: saelens, dictionary_learning, sparsify, openai or another of `FORMATS`.

    Raises:
        SAEError: the package has no such SAE, there is no such package, or the folder cannot be written.
    """
    save = FORMATS.all()[to].save if to in writable() else None
    if save is None:
        raise SAEError(f"there is no format {to!r} to write; there are {', '.join(writable())}")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            save(sae, folder)
    except UNWRITABLE as error:
        raise SAEError(f"{folder}: the SAE could not be written ({error})") from error
    return folder


def push_sae(
    sae: SAE,
    repo_id: str,
    folder_in_repo: str | None = None,
    *,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> str:
    """Put an SAE and its card into a repository `owner/name` in one commit, and return the commit's address.

    The repository, and the branch `revision`, are made if they are not there. Several SAEs share a repository in a
    folder each, with a card each; the repository's own card is the first one's.

    Raises:
        SAEError: the hub refuses, cannot be reached, or the folder is none.
    """
    hub = require("huggingface_hub", "all")
    folder = path_inside(folder_in_repo or "", f"hf:{repo_id}")
    try:
        api = hub.HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        with TemporaryDirectory() as root:
            card = card_of(sae, repo_id, folder)
            (save_sae(sae, Path(root, folder)) / CARD).write_text(card, encoding="utf-8")
            if folder and not api.file_exists(repo_id, CARD, revision=revision):
                Path(root, CARD).write_text(card, encoding="utf-8")
            message = f"{folder or 'SAE'}: {sae.d_sae} features of {sae.info.site or 'a site'} (audiosteer)"
            commit = api.upload_folder(repo_id=repo_id, folder_path=root, revision=revision, commit_message=message)
    except AudioSteerError:
        raise
    except Exception as error:  # the hub raises its own, its http library's and OS errors
        raise SAEError(str(HubError(repo_id, "pushed", *explained(error, repo_id, revision)))) from error
    return str(commit.commit_url)


def fetch_sae(
    repo_id: str, subfolder: str | None = None, *, revision: str | None = None, token: str | None = None
) -> SAE:
    """Load an SAE from a repository `owner/name` or a folder in it, in any format that `load_sae` reads.

    Raises:
        SAEError: it cannot be downloaded, or there is no SAE that can be opened.
    """
    path = downloaded(repo_id, subfolder or "", revision, token)
    try:
        return load_sae(path)
    except SAEError as error:
        raise SAEError(f"hf:{'/'.join(part for part in (repo_id, subfolder) if part)}: {error}") from error


def weights_in(folder: Path) -> Path:
    """The one file of weights in a folder, by its name, or the only torch file there.

    Raises:
        SAEError: there is none, or it is not clear which.
    """
    if not folder.is_dir():
        raise SAEError(f"{folder}: is neither a file nor a folder")
    for name in files():
        if (folder / name).is_file():
            return folder / name
    if (folder / CFG).is_file():
        raise SAEError(f"no {WEIGHTS} (or {sparsify.WEIGHTS}) in {folder}")
    found = sorted(path for path in folder.iterdir() if path.suffix in TORCH_FILES)
    if len(found) == 1:
        return found[0]
    if found:
        raise SAEError(f"{folder}: which of {', '.join(path.name for path in found[:8])}? Pass the file")
    inner = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and any((path / n).is_file() for n in files())
    )
    there = f"; there are SAEs in its folders {', '.join(inner[:40])}" if inner else ""
    named = f"no {CFG} with its weights, no {dictionary_learning.WEIGHTS}"
    raise SAEError(f"no SAE in {folder}: {named} and no other torch file{there}")


def config_beside(weights: Path) -> dict[str, Any]:
    """The JSON that belongs to a file of weights; {} for a torch file that has none."""
    for known in FORMATS.all().values():
        if known.weights == weights.name and known.config:
            return read_json(weights.with_name(known.config))
    # dictionary_learning keeps earlier steps in a folder of their own
    folders = [weights.parent, *([weights.parent.parent] if weights.parent.name == "checkpoints" else [])]
    names = ("config.json", CFG, "training_config.json")
    paths = [folder / name for folder in folders for name in names]
    return next((read_json(path) for path in paths if path.is_file()), {})

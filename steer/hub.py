"""SAEs on the Hugging Face hub: pushed as SAELens's folder with a card made from what the SAE says of itself."""

from __future__ import annotations

import glob
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from hooks.errors import AudioSteerError, require
from hooks.hub import HubError, explained, snapshot
from steer.errors import SAEError
from steer.formats import load_sae, save_sae
from steer.sae import SAE

CARD = "README.md"
TAGS = ["audiosteer", "sparse-autoencoder", "interpretability", "audio"]
LICENSES = {
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "openrail", "unlicense", "cc0-1.0", "cc"),
    *(f"cc-by{terms}-4.0" for terms in ("", "-sa", "-nc", "-nd", "-nc-sa", "-nc-nd")),
}
"""Identifiers that the hub knows and that are common here; any other license is `other` with its name."""


def push(
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
    folder = inside(folder_in_repo)
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


def fetch(repo_id: str, subfolder: str | None = None, *, revision: str | None = None, token: str | None = None) -> SAE:
    """Load an SAE from a repository `owner/name` or a folder in it, in any format that `SAE.load` reads.

    Raises:
        SAEError: it cannot be had, or there is no SAE that can be opened.
    """
    folder = inside(subfolder)
    name = "/".join(part for part in (repo_id, folder) if part)
    try:
        if folder:
            root = snapshot(repo_id, revision, only=[f"{glob.escape(folder)}/*"], token=token)
        else:
            # other SAEs may lie in folders
            root = snapshot(repo_id, revision, without=["*/*"], token=token)
        if not Path(root, folder).is_dir():
            raise SAEError(f"there is no folder {folder} in {repo_id}; see its files on the hub")
        return load_sae(Path(root, folder))
    except HubError as error:
        raise SAEError(str(error)) from error
    except SAEError as error:
        raise SAEError(f"hf:{name}: {error}") from error


def inside(folder: str | None) -> str:
    """A folder in a repository, "" for the top.

    Raises:
        SAEError: it is absolute or leads out.
    """
    path = PurePosixPath(folder or "")
    if path.is_absolute() or ".." in path.parts:
        raise SAEError(f"{folder!r} is no folder in a repository: write it as layers/3")
    return "" if path == PurePosixPath() else str(path)


def card_of(sae: SAE, repo_id: str, folder: str = "") -> str:
    """The card of an SAE: the hub's front matter, what it is, what was measured, and how it is loaded."""
    info = sae.info
    site, model = info.site or "a site that it does not name", info.model or "a model that it does not name"
    facts: dict[str, Any] = {
        "model": f"`{info.model}`" if info.model else None,
        "site": f"`{info.site}`" if info.site else None,
        "width of the activation": sae.d_in,
        "features": sae.d_sae,
        "activation": sae.activation,
        "k": sae.k,
        "done to each activation": sae.normalize,
        "features divided by their RMS": "yes" if sae.rms_norm else None,
        "frame rate": None if info.frame_rate is None else f"{info.frame_rate:g} Hz",
        "sampling rate": None if info.sample_rate is None else f"{info.sample_rate} Hz",
        "data": info.data,
        "license": info.license,
    }
    arguments = ", ".join(f'"{part}"' for part in (repo_id, folder) if part)
    parts = [
        "---\n" + yaml.safe_dump(front_matter(sae), sort_keys=False, allow_unicode=True) + "---",
        f"# Sparse autoencoder for `{site}` of `{model}`" if info.site and info.model else "# Sparse autoencoder",
        f"{sae.d_sae} features of the activation at {site} of {model}, which is {sae.d_in} wide.",
        table(("", ""), {key: value for key, value in facts.items() if value not in (None, "")}),
    ]
    if info.metrics:
        parts += ["## Measured", table(("metric", "value"), {k: f"{v:.4g}" for k, v in info.metrics.items()})]
    parts += [
        "## Use",
        "With AudioSteer:" if sae.rms_norm else "With AudioSteer (SAELens opens the folder too):",
        f"```python\nfrom steer import SAE\nsae = SAE.from_hub({arguments})\n```",
    ]
    return "\n\n".join(parts) + "\n"


def front_matter(sae: SAE) -> dict[str, Any]:
    """What the hub reads of a card."""
    info = sae.info
    matter: dict[str, Any] = {}
    if info.license.lower() in LICENSES:
        matter["license"] = info.license.lower()
    elif info.license:
        matter |= {"license": "other", "license_name": "-".join(info.license.lower().split())}
    matter |= {"library_name": "audiosteer", "tags": TAGS if sae.rms_norm else [*TAGS, "saelens"]}
    if info.model.startswith("hf:"):
        matter["base_model"] = info.model.removeprefix("hf:").partition("@")[0]
    return matter


def table(head: tuple[str, str], rows: dict[str, Any]) -> str:
    """A table of Markdown; what a cell says cannot leave it."""
    cells = [head, ("---", "---"), *((key, " ".join(str(value).split())) for key, value in rows.items())]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)

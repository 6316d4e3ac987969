"""The card of an SAE on the hub, made from what the SAE says of itself."""

from __future__ import annotations

from typing import Any

import yaml

from steer.sae import SAE

CARD = "README.md"
TAGS = ["audiosteer", "sparse-autoencoder", "interpretability", "audio"]
LICENSES = {
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "openrail", "unlicense", "cc0-1.0", "cc"),
    *(f"cc-by{terms}-4.0" for terms in ("", "-sa", "-nc", "-nd", "-nc-sa", "-nc-nd")),
}
"""Identifiers that the hub knows and that are common here; any other license is `other` with its name."""


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

"""SAEs of several seeds: where they lie, and whether they may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hooks.errors import AudioSteerError
from steer.formats import CFG
from steer.sae import SAE
from steer.sae_folders import by_number


class StabilityError(AudioSteerError):
    """SAEs that cannot be compared, or no activations to compare them on."""


def seeds_in(folder: Path) -> dict[str, list[SAE]]:
    """{site: SAEs} of a folder that holds SITE/seed-N/, as `steer train --seeds` writes it; in the order of numbers.

    Raises:
        StabilityError: there are none, or those of a site are of unlike trainings.
        SAEError: one that cannot be read.
    """
    found: dict[str, list[SAE]] = {}
    for site, paths in folders_in(folder).items():
        found[site] = [SAE.load(path) for path in paths]
        for path, sae in zip(paths, found[site], strict=True):
            if sae.extra_repr() != found[site][0].extra_repr():
                raise StabilityError(
                    f"{path}: no seed of the same training as {paths[0].name}; it is {sae.extra_repr()}, that one is "
                    f"{found[site][0].extra_repr()}"
                )
        check(site, found[site])
    if not found:
        raise StabilityError(f"{folder}: no SAEs of several seeds there; they would be in SITE/seed-N/{CFG}")
    return found


def folders_in(folder: Path) -> dict[str, list[Path]]:
    """{site: folders of its seeds}."""
    found: dict[str, list[Path]] = {}
    paths = [path.parent for path in folder.glob(f"*/seed-*/{CFG}")]
    for path in sorted(paths, key=lambda path: [by_number(part) for part in path.parts[-2:]]):
        found.setdefault(path.parent.name, []).append(path)
    return found


def check(site: str, seeds: Sequence[SAE]) -> None:
    """Raises StabilityError unless these may be SAEs of several seeds for that site."""
    if len(seeds) < 2:
        raise StabilityError(f"{site}: stability compares SAEs of several seeds, there is {len(seeds)}")
    widths = sorted({sae.d_in for sae in seeds})
    if len(widths) > 1:
        raise StabilityError(f"{site}: SAEs for activations {' and '.join(map(str, widths))} wide cannot be compared")
    for told, own in ((sae.info.site, site) for sae in seeds):
        if told not in ("", own):
            raise StabilityError(f"{site}: one of the SAEs says that it is for site {told!r}")
    models = {sae.info.model: None for sae in seeds if sae.info.model}
    if len(models) > 1:
        raise StabilityError(f"{site}: the SAEs are of several models: {' and '.join(models)}")

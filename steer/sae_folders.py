"""What a name of SAEs stands for: one, all that ship for a model, or all in a folder that `steer train` wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from steer import starter
from steer.errors import SAEError
from steer.formats import load_sae
from steer.formats.known import files


@dataclass(frozen=True)
class NamedSAE:
    """The name of a single SAE, and the site and model it is for, as far as that is known."""

    source: str
    site: str
    model: str


def saes_of(source: str, site: str | None = None) -> list[NamedSAE]:
    """The SAEs that a name stands for: `starter:codec/latent`, a folder or file of one, all that ship for a model
    (`whisper:tiny.en`), or a folder with an SAE in SITE/ or in SITE/seed-N/, of several seeds that of the first.

    `site` is where a single SAE goes, whatever it says; of several the one that goes there.

    Raises:
        SAEError: one that cannot be read, or none of several goes to `site`.
    """
    sources = sources_of(source)
    infos = {one: load_sae(one).info for one in sources}
    if sources.get(source) == "":
        return [NamedSAE(source, site or infos[source].site, infos[source].model)]
    found = [NamedSAE(one, infos[one].site or place, infos[one].model) for one, place in sources.items()]
    if site is None:
        return found
    chosen = [one for one in found if one.site == site]
    if not chosen:
        raise SAEError(f"{source}: holds SAEs for {', '.join(one.site for one in found)}, none for site {site!r}")
    return chosen


def sources_of(source: str) -> dict[str, str]:
    """{name of a single SAE: site by its folder's name}; a name that stands for one SAE is the only one, site ""."""
    if own := starter.saes(source):
        return {name: name.rpartition("/")[2] for name in own}
    path = Path(source)
    if not path.is_dir() or holds_sae(path):
        return {source: ""}
    sites = {inner.name: first_in(inner) for inner in sorted(path.iterdir(), key=lambda inner: by_number(inner.name))}
    return {str(folder): site for site, folder in sites.items() if folder is not None} or {source: ""}


def first_in(folder: Path) -> Path | None:
    """The folder itself if it holds an SAE, else that of its first seed."""
    if holds_sae(folder):
        return folder
    seeds = sorted(folder.glob("seed-*"), key=lambda seed: by_number(seed.name))
    return next((seed for seed in seeds if holds_sae(seed)), None)


def holds_sae(folder: Path) -> bool:
    return any((folder / name).is_file() for name in files())


def by_number(name: str) -> list[tuple[int, str]]:
    """A key that puts encoder.10 behind encoder.9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]

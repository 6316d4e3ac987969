"""The atlas modes of `steer features`: build an atlas from labelled sounds, and read one."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from apps.files import results_in, to_json
from apps.inputs import sounds_of
from apps.progress import track
from evaluation.atlas import Atlas, AtlasError
from evaluation.atlas_build import build
from evaluation.atlas_effects import with_effects
from evaluation.by_layer import a_row_a_site, joined
from evaluation.dataset import Dataset, LabelledSound
from hooks.clip import check_target
from steer.recipe import Recipe

SUFFIX = ".safetensors"


def build_atlas(
    path: Path,
    recipe: Recipe,
    device: str,
    audio: Path,
    split: str,
    clips: int | None,
    effects: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Build the atlas of the recipe's SAE, save it, and show which feature tells which label, with `effects` also what
    goes with it.

    Of SAEs at several sites, `path` is a folder for an atlas of each, all built in one pass, and the table has a row a
    site.

    Raises:
        AtlasError: SAEs at several sites and a file, or features that are not finite.
        AudioFileError: the file exists (without `force`), or sounds that are not there or cannot be read.
    """
    several = len(recipe.saes) > 1
    if several and path.suffix:
        sites = ", ".join(recipe.saes)
        raise AtlasError(f"{path}: an atlas is of one SAE, there are some at {sites}; name a folder, or pass --site")
    targets = {site: path / f"{site}{SUFFIX}" if several else path for site in recipe.saes}
    with results_in(path) if several else nullcontext():
        for target in targets.values():
            check_target(target, force)
        sounds = sounds_in(audio, split, clips)
        chosen: dict[str, Any] = {"split": split} if sounds[0].labels else {}
        if clips is not None:
            chosen["clips of a subset at most"] = clips
        steered, progress = recipe.open(device), lambda jobs: track(jobs, "atlas")
        built = build(steered, sounds, progress=progress)
        if effects:
            built = {site: with_effects(steered, one, sounds, progress=progress) for site, one in built.items()}
        atlases = {
            site: replace(atlas, sae=recipe.saes[site], about={"audio": audio.resolve().name, **chosen, **atlas.about})
            for site, atlas in built.items()
        }
        for site, atlas in atlases.items():
            atlas.save(targets[site])
    report = joined({site: atlas.report() for site, atlas in atlases.items()}, "The feature that tells a label best")
    if as_json:
        silent: Any = {site: atlas.silent for site, atlas in atlases.items()}
        print(to_json({"atlas": str(path), "silent": silent if several else silent.popitem()[1], **report.to_dict()}))
    elif not report.rows:
        for site, atlas in atlases.items():
            print(f"{targets[site]}: {atlas.summary()}; no labels")
    elif several:
        title = "AUROC of the feature that tells a label best"
        a_row_a_site(title, report.rows, lambda row: str(row["label"]), "AUROC").print(intervals=False)
    else:
        report.print()


def sounds_in(audio: Path, split: str, clips: int | None) -> list[LabelledSound]:
    """The labelled clips of a split; in a folder without manifests, all sound files, of which nothing is known."""
    dataset = Dataset(audio)
    if dataset.manifests:
        return dataset.sounds(None, split, clips)
    return [LabelledSound(path, str(path.relative_to(audio))) for path in sounds_of([str(audio)])[:clips]]


def show_atlas(path: Path, top: int, label: str | None, feature: int | None, as_json: bool) -> None:
    """Show one feature, the features that tell a label, or those whose label is clearest.

    Raises:
        AtlasError: no such atlas, or it does not know the label.
        EditError: no such feature.
    """
    atlas = Atlas.load(path)
    if feature is not None:
        meanings = [atlas.feature(feature)]
    elif label is not None:
        meanings = atlas.by_label(label, top)
    else:
        meanings = atlas.clearest(top)
    if as_json:
        print(to_json([asdict(meaning) for meaning in meanings]))
    else:
        atlas.table(meanings, 3 if feature is None else 10).print()


def label_of(atlas: Atlas, feature: int) -> dict[str, Any]:
    """The best label of a feature, for a list of features of other sounds."""
    best = atlas.feature(feature, labels=1).labels
    return {"label": best[0].label, "auroc": best[0].auroc} if best else {"label": None, "auroc": None}

"""The atlas modes of `steer features`: build an atlas from labelled sounds, and read one."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from apps.files import to_json
from apps.inputs import sounds_of
from apps.progress import track
from evaluation.atlas import Atlas, AtlasError
from evaluation.atlas_build import build
from evaluation.atlas_effects import with_effects
from evaluation.dataset import Dataset, LabelledSound
from hooks.clip import check_target
from steer.recipe import Recipe


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

    Raises:
        AtlasError: SAEs at several sites, or features that are not finite.
        AudioFileError: the file exists (without `force`), or sounds that are not there or cannot be read.
    """
    check_target(path, force)
    if len(recipe.saes) > 1:
        raise AtlasError(f"an atlas is of one SAE, there are some at {', '.join(recipe.saes)}; pass --sae")
    (sae,) = recipe.saes.values()
    sounds = sounds_in(audio, split, clips)
    steered, progress = recipe.open(device), lambda jobs: track(jobs, "atlas")
    (atlas,) = build(steered, sounds, progress=progress).values()
    if effects:
        atlas = with_effects(steered, atlas, sounds, progress=progress)
    chosen: dict[str, Any] = {"split": split} if sounds[0].labels else {}
    if clips is not None:
        chosen["clips of a subset at most"] = clips
    atlas = replace(atlas, sae=sae, about={"audio": audio.resolve().name, **chosen, **atlas.about})
    atlas.save(path)
    report = atlas.report()
    if as_json:
        print(to_json({"atlas": str(path), "silent": atlas.silent, **report.to_dict()}))
    elif report.rows:
        report.print()
    else:
        print(f"{path}: {atlas.summary()}; no labels")


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

"""`steer features`: which features of an SAE a sound has most of, and what they mean (see `atlas`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apps.options import Force, Json, Model, Sae, SaeSite

if TYPE_CHECKING:
    from torch import Tensor

    from evaluation.atlas import Atlas
    from hooks.model import Source
    from steer.recipe import Recipe
    from steer.steered import SteeredModel

ATLAS = "Atlas: what features mean"


def features(
    inputs: Annotated[list[str] | None, typer.Argument(help="Sound files, folders or quoted globs.")] = None,
    model: Model = None,
    sae: Sae = None,
    site: SaeSite = None,
    top: Annotated[int, typer.Option(min=1, help="How many features to list.")] = 10,
    out: Annotated[Path | None, typer.Option(help="Save all features, \\[frames, d_sae] a file (safetensors).")] = None,
    atlas: Annotated[
        Path | None,
        typer.Option(
            help="File to read, or with --audio to build; starter:codec/latent for that SAE's.", rich_help_panel=ATLAS
        ),
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(
            help="Build from this folder: subsets with a manifest.csv each, or sounds.", rich_help_panel=ATLAS
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Build from train, valid or test clips.", rich_help_panel=ATLAS)] = "test",
    clips: Annotated[
        int | None, typer.Option(min=1, help="Build from at most this many clips of a subset.", rich_help_panel=ATLAS)
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="List the features that tell this label.", rich_help_panel=ATLAS)
    ] = None,
    feature: Annotated[int | None, typer.Option(help="Show this feature.", rich_help_panel=ATLAS)] = None,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """List the strongest features of sounds, by their mean over time; or what the features of an SAE mean.

    The latter is in an atlas: --atlas FILE --audio DIR builds one.

    Without --audio, --atlas FILE lists the features that tell a label best; with sounds, their features' labels.
    """
    from apps.atlas import build_atlas, show_atlas
    from apps.flags import recipe_of
    from evaluation.atlas import Atlas, AtlasError

    if audio is not None and (atlas is None or inputs):
        raise AtlasError("--audio builds an atlas: pass --atlas FILE to write it to, and no other sounds")
    if (label is not None or feature is not None) and (atlas is None or inputs or audio is not None):
        raise AtlasError("--label and --feature look something up in an atlas: pass --atlas FILE, and no sounds")
    if out is not None and atlas is not None and not inputs:
        raise AtlasError("--out saves the features of sounds: name some")
    if atlas is not None and not inputs and audio is None:
        show_atlas(atlas, top, label, feature, as_json)
        return
    recipe = recipe_of(None, {}, [], [], None, model, sae, site)
    if atlas is not None and audio is not None:
        build_atlas(atlas, recipe, audio, split, clips, force, as_json)
    else:
        list_features(inputs or [], recipe, top, out, Atlas.load(atlas) if atlas else None, as_json, force)


def list_features(
    inputs: list[str], recipe: Recipe, top: int, out: Path | None, atlas: Atlas | None, as_json: bool, force: bool
) -> None:
    """The strongest features of each sound, with their labels if there is an atlas."""
    from rich.console import Console
    from safetensors.torch import save_file

    from apps.files import to_json, write_result
    from apps.inputs import sounds_of
    from apps.progress import track
    from hooks.clip import check_target

    if out is not None:
        check_target(out, force)
    paths = sounds_of(inputs)
    steered = recipe.open()
    lists: list[dict[str, Any]] = []
    kept: dict[str, Tensor] = {}
    for path in track(paths, "features"):
        for name, f_TF in features_of(steered, path).items():
            rate = steered.sites[name].frame_rate
            rows = strongest(f_TF, rate, top)
            lists.append({"file": str(path), "site": name, "features": labelled(rows, atlas, name, f_TF.shape[1])})
            if out is not None:
                kept[f"{path}:{name}"] = f_TF.contiguous()
    if out is not None:
        write_result(out, lambda partial: save_file(kept, partial), force)
    if as_json:
        print(to_json(lists))
    else:
        for entry in lists:
            Console().print(table_of(entry))


def features_of(steered: SteeredModel, source: Source, sites: Sequence[str] | None = None) -> dict[str, Tensor]:
    """All features of a sound, {site: [T, d_sae]}, of the given sites or all; the model runs on stretches of it."""
    import torch

    from hooks import capture

    pieces: dict[str, list[Tensor]] = {}
    for captured in capture(steered.model, [source], list(sites or steered.sites)):
        for site, x_BTD in captured.activations.items():
            with torch.no_grad():
                pieces.setdefault(site, []).append(steered.saes[site].encode(x_BTD)[0].float().cpu())
    return {site: torch.cat(some) for site, some in pieces.items()}


def strongest(f_TF: Tensor, frame_rate: float | None, top: int) -> list[dict[str, Any]]:
    """The features with the largest mean: their share of frames, and how high and when (in seconds) they peak."""
    mean_F = f_TF.mean(0)
    share_F = (f_TF > 0).float().mean(0)
    peak_F, when_F = f_TF.max(0)
    return [
        {
            "feature": feature,
            "mean": float(mean_F[feature]),
            "share": float(share_F[feature]),
            "peak": float(peak_F[feature]),
            "peak_s": (int(when_F[feature]) + 0.5) / frame_rate if frame_rate else None,
        }
        for feature in mean_F.topk(min(top, len(mean_F))).indices.tolist()
        if mean_F[feature] > 0
    ]


def labelled(rows: list[dict[str, Any]], atlas: Atlas | None, site: str, d_sae: int) -> list[dict[str, Any]]:
    """The same with each feature's best label.

    Raises:
        AtlasError: the atlas is of another SAE.
    """
    from apps.atlas import label_of

    if atlas is None:
        return rows
    atlas.check_fits(site, d_sae)
    return [{**row, **label_of(atlas, row["feature"])} for row in rows]


def table_of(entry: dict[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{entry['file']} at {entry['site']}"))
    for head in ("feature", "mean", "share of frames", "peak", "at"):
        table.add_column(head, justify="right")
    if any("label" in row for row in entry["features"]):
        table.add_column("label (AUROC)")
    for row in entry["features"]:
        when = "–" if row["peak_s"] is None else f"{row['peak_s']:.2f} s"
        cells = [str(row["feature"]), f"{row['mean']:.3f}", f"{row['share']:.0%}", f"{row['peak']:.2f}", when]
        if row.get("label"):
            cells.append(f"{row['label']} ({row['auroc']:.2f})")
        table.add_row(*map(Text, cells))
    return table

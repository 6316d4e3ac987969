"""`steer features`: which features of an SAE a sound has most of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apps.options import Force, Json, Model, Sae, SaeSite, Sounds

if TYPE_CHECKING:
    from torch import Tensor


def features(
    inputs: Sounds,
    model: Model = None,
    sae: Sae = None,
    site: SaeSite = None,
    top: Annotated[int, typer.Option(min=1, help="How many features to list.")] = 10,
    out: Annotated[Path | None, typer.Option(help="Save all features, [frames, d_sae] a file (safetensors).")] = None,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """List the strongest features of sounds, by their mean over time."""
    from rich.console import Console
    from safetensors.torch import save_file

    from apps.files import sounds_of, to_json, write_result
    from apps.flags import recipe_of
    from apps.progress import track
    from hooks.clip import check_target

    if out is not None:
        check_target(out, force)
    paths = sounds_of(inputs)
    steered = recipe_of(None, {}, [], [], None, model, sae, site).open()
    lists: list[dict[str, Any]] = []
    kept: dict[str, Tensor] = {}
    for path in track(paths, "features"):
        for name, f_TF in features_of(steered, path).items():
            rate = steered.sites[name].frame_rate
            lists.append({"file": str(path), "site": name, "features": strongest(f_TF, rate, top)})
            if out is not None:
                kept[f"{path}:{name}"] = f_TF.contiguous()
    if out is not None:
        write_result(out, lambda partial: save_file(kept, partial), force)
    if as_json:
        print(to_json(lists))
    else:
        for entry in lists:
            Console().print(table_of(entry))


def features_of(steered: Any, path: Path) -> dict[str, Tensor]:
    """All features of a file, {site: [T, d_sae]}; the model runs on stretches of it."""
    import torch

    from hooks import capture

    pieces: dict[str, list[Tensor]] = {}
    for captured in capture(steered.model, [path], list(steered.sites)):
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


def table_of(entry: dict[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{entry['file']} at {entry['site']}"))
    for head in ("feature", "mean", "share of frames", "peak", "at"):
        table.add_column(head, justify="right")
    for row in entry["features"]:
        when = "–" if row["peak_s"] is None else f"{row['peak_s']:.2f} s"
        table.add_row(str(row["feature"]), f"{row['mean']:.3f}", f"{row['share']:.0%}", f"{row['peak']:.2f}", when)
    return table

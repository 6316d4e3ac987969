"""Average two trainings of `starter:codec`: `python -m training.average_weights FIRST SECOND AUDIO --out DIR`.

Weights between those of a training and of one that went on from it are often better than either (model soups,
arXiv 2203.05482). The share with the lowest mel distance on valid clips is exported.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import load_file
from torch import Tensor

from hooks.networks.source_filter import SourceFilter
from training.train_codec import CONFIG, export, measured, valid_clips


def between(first: dict[str, Tensor], second: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights that are `share` of the way from the first to the second, float32."""
    return {name: torch.lerp(value.float(), second[name].float(), share) for name, value in first.items()}


def main(
    first: Annotated[Path, typer.Argument(help="folder with model.safetensors")],
    second: Annotated[Path, typer.Argument(help="folder of the training that went on from there")],
    audio: Annotated[Path, typer.Argument(help="folder of subsets, each with a manifest.csv")],
    out: Annotated[Path, typer.Option(help="where the result goes")],
    shares: Annotated[str, typer.Option(help="shares of the second to try, with commas")] = "0,0.3,0.5,0.7,0.85,1,1.3",
    threads: Annotated[int, typer.Option(help="CPU threads")] = 2,
) -> None:
    """Measure averages on valid clips and export the best."""
    torch.set_num_threads(threads)
    start, end = (load_file(folder / "model.safetensors") for folder in (first, second))
    model, valid = SourceFilter(CONFIG), valid_clips(audio)
    found: dict[float, float] = {}
    for share in map(float, shares.split(",")):
        model.load_weights_(between(start, end, share))
        means = measured(model, valid)
        print(json.dumps({"share": share, **means}), flush=True)
        found[share] = means["valid_mel"]
    out.mkdir(parents=True, exist_ok=True)
    print(export(between(start, end, min(found, key=lambda share: found[share])), out))


if __name__ == "__main__":
    typer.run(main)

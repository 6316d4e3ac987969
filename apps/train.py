"""`steer train`: an SAE for a site of a model, from sound files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apps.options import Json, Sounds, output


def train(
    inputs: Sounds,
    out: Annotated[Path, output("Folder of the SAE, its checkpoints and loss curve.")],
    model: Annotated[str, typer.Option(help="Name or folder; see `steer models`.")] = "starter:codec",
    site: Annotated[str, typer.Option(help="Where in the model.")] = "latent",
    activation: Annotated[str, typer.Option(help="relu, topk, batchtopk, jumprelu or gated.")] = "batchtopk",
    k: Annotated[int, typer.Option(help="Active features a frame, for topk and batchtopk.")] = 32,
    expansion: Annotated[int, typer.Option(help="Features for each channel of the activation.")] = 8,
    sparsity: Annotated[float, typer.Option(help="Weight of the penalty, for relu, gated and jumprelu.")] = 0.3,
    steps: Annotated[int, typer.Option(help="Batches.")] = 20_000,
    batch_size: Annotated[int, typer.Option(help="Frames a batch.")] = 4096,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 5e-4,
    seed: Annotated[int, typer.Option(help="For the first weights.")] = 0,
    store: Annotated[Path | None, typer.Option(help="Folder of the activations. Default: in the output.")] = None,
    data: Annotated[str, typer.Option(help="What the sounds are, for the SAE's own notes.")] = "",
    license: Annotated[str, typer.Option(help="Licence of the SAE, for the same.")] = "",
    as_json: Json = False,
) -> None:
    """Train an SAE; the same command goes on where a stopped one was."""
    from apps.files import sounds_of, to_json
    from apps.progress import track
    from hooks import open_model
    from hooks.store import fill
    from steer.errors import TrainingError
    from steer.formats import CFG
    from steer.sae import SAEInfo
    from steer.training import STATE, TrainConfig, train_sae

    if (out / CFG).exists() and not (out / STATE).exists():
        raise TrainingError(f"{out}: holds an SAE that no training of ours wrote there; choose another folder")
    config = TrainConfig(
        activation, k, expansion, sparsity=sparsity, steps=steps, batch_size=batch_size, lr=rate, seed=seed
    )
    sounds = track(sounds_of(inputs), "activations")
    activations = fill(store or out / "activations", open_model(model), sounds, [site])
    info = SAEInfo(model=model, site=site, data=data or ", ".join(inputs), license=license)
    metrics = train_sae(activations, config, out, info=info, progress=not as_json).info.metrics
    if as_json:
        print(to_json({"sae": str(out), "metrics": metrics}))
        return
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in metrics.items())
    print(f"{out}: {shown}")

"""`steer train`: SAEs for sites of a model, from sound files or a store of activations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apps.options import Json

if TYPE_CHECKING:
    from evaluation.downstream import Sets
    from hooks import AudioModel
    from hooks.model import Source
    from hooks.store import ActivationStore

WHERE, HOW, COST = "Where", "How", "What it costs downstream"


def train(
    out: Annotated[
        Path,
        typer.Option(
            "--out", "--output", "-o", help="Folder for the SAEs, checkpoints and metrics.", show_default=False
        ),
    ],
    inputs: Annotated[list[str] | None, typer.Argument(help="Sound files, folders or quoted globs.")] = None,
    audio: Annotated[
        Path | None,
        typer.Option(help="Instead: folder of subsets with a manifest.csv each; only split train is trained on."),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the activations: with sounds it is filled (default: in the output), alone it is trained on."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name or folder; see `steer models`. Default: starter:codec, or the store's.", rich_help_panel=WHERE
        ),
    ] = None,
    site: Annotated[
        str | None,
        typer.Option(
            "--site", "--sites", help="Sites, with commas. Default: latent, or all of the store.", rich_help_panel=WHERE
        ),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="all, or numbers such as 0,1: the sites encoder.N.", rich_help_panel=WHERE)
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Where model and SAEs run: cpu, cuda or cuda:1. Default: the GPU if there is one.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    activation: Annotated[
        str, typer.Option(help="relu, topk, batchtopk, jumprelu or gated.", rich_help_panel=HOW)
    ] = "batchtopk",
    k: Annotated[int, typer.Option(help="Active features a frame, for topk and batchtopk.", rich_help_panel=HOW)] = 50,
    expansion: Annotated[
        int, typer.Option(help="Features for each channel of the activation.", rich_help_panel=HOW)
    ] = 8,
    objective: Annotated[
        str,
        typer.Option(
            help="What is minimised: plain (the error), l1 or l0 (and a penalty), or matryoshka. Default: l1 for relu "
            "and gated, l0 for jumprelu, else plain.",
            show_default=False,
            rich_help_panel=HOW,
        ),
    ] = "",
    sparsity: Annotated[float, typer.Option(help="Weight of the penalty, l1 or l0.", rich_help_panel=HOW)] = 0.3,
    steps: Annotated[int, typer.Option(help="Batches.", rich_help_panel=HOW)] = 20_000,
    batch_size: Annotated[int, typer.Option(help="Frames a batch.", rich_help_panel=HOW)] = 4096,
    rate: Annotated[float, typer.Option(help="Learning rate.", rich_help_panel=HOW)] = 5e-4,
    minutes: Annotated[
        float, typer.Option(help="A checkpoint at least so often; there is one every 500 steps.", rich_help_panel=HOW)
    ] = 5.0,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Multiply in bfloat16: faster on some machines.", rich_help_panel=HOW)
    ] = False,
    seeds: Annotated[
        str, typer.Option("--seeds", "--seed", help="For the first weights, with commas.", rich_help_panel=HOW)
    ] = "0",
    downstream: Annotated[
        bool,
        typer.Option(
            help="Measure it on valid clips: WER, or accuracy of probes. Needs --audio.", rich_help_panel=COST
        ),
    ] = True,
    clips: Annotated[
        int, typer.Option(min=1, help="At most this many clips of a subset and split.", rich_help_panel=COST)
    ] = 40,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of sounds of equal length that run at once; with 1 how a sound's activations are rounded does "
            "not depend on the others. Default: 4.",
        ),
    ] = None,
    data: Annotated[str, typer.Option(help="What the sounds are, for the SAE's own notes.")] = "",
    license: Annotated[str, typer.Option(help="Licence of the SAE, for the same.")] = "",
    as_json: Json = False,
) -> None:
    """Train an SAE for each site and seed, all in one pass of the sounds.

    They are saved as OUT/SITE, or with several seeds as OUT/SITE/seed-N.

    The same command goes on where a stopped one was; Ctrl-C writes a checkpoint first. Under torchrun several processes
    train together.
    """
    from apps.files import to_json
    from apps.inputs import sounds_of
    from apps.progress import track
    from evaluation.dataset import IMPULSE_RESPONSE, Dataset
    from evaluation.downstream import clip_sets, evaluate
    from evaluation.report import Report
    from hooks import open_model
    from hooks.store import ActivationStore
    from hooks.store_writing import fill
    from steer.checkpoints import STATE
    from steer.errors import TrainingError
    from steer.formats import CFG
    from steer.parallel import own_device, process_group
    from steer.sae import SAEInfo
    from steer.training import TrainConfig, check_configs, train_saes
    from steer.training_data import BATCH

    numbers = seeds_in(seeds)
    alone = store is not None and not inputs and audio is None
    if not alone and bool(inputs) == (audio is not None):
        raise TrainingError(
            "say which sounds: either files, folders and globs, or --audio FOLDER, or --store alone, of a filled store"
        )
    stored = store or out / "activations"
    called = model or "starter:codec"
    source = f"{audio.resolve().name}, split train" if audio else ", ".join(inputs or [stored.resolve().name])

    def folder_of(site: str, number: int) -> Path:
        return out / site / f"seed-{number}" if len(numbers) > 1 else out / site

    def check_folders(sites: Sequence[str]) -> None:
        for folder in (folder_of(*names) for names in product(sites, numbers)):
            if (folder / CFG).exists() and not (out / STATE).exists():
                raise TrainingError(
                    f"{folder}: holds an SAE that no training of ours wrote there; choose another folder"
                )

    def captured() -> tuple[AudioModel, Sets | None] | None:
        """Fill the store, unless it is; gives the model, and clips to measure on."""
        if alone:
            check_folders(list(filled_store(stored, model, site, layers, batch).sites))
            return None
        opened = open_model(called, device=own_device(device))
        sites = sites_in(opened, site, layers)
        check_folders(sites)
        sounds: Sequence[Source] = sounds_of(inputs) if inputs else []
        if audio is not None:
            dataset = Dataset(audio, divide=True)
            sounds = [sound.source for sound in dataset.sounds(None, "train", leave_out=[IMPULSE_RESPONSE])]
        tells = audio is not None and downstream and opened.kind in ("transcriber", "encoder")
        sets = clip_sets(opened, Dataset(audio, divide=True), clips) if audio and tells else None
        fill(stored, opened, track(sounds, "activations"), sites, batch=batch or BATCH)
        return opened, sets

    config = TrainConfig(
        activation,
        k,
        expansion,
        objective=objective,
        sparsity=sparsity,
        steps=steps,
        batch_size=batch_size,
        lr=rate,
        bf16=bf16,
    )
    configs = [replace(config, seed=number) for number in numbers]
    check_configs(configs)
    with process_group(device) as group:
        measured = group.once(captured)
        activations = filled_store(stored, model, site, layers, batch) if alone else ActivationStore(stored)
        called = activations.model if alone else called
        info = SAEInfo(model=called, data=data or source, license=license)
        saes = train_saes(
            activations,
            configs,
            out,
            info=info,
            device=device,
            progress=not as_json,
            checkpoint_minutes=minutes,
        )
    if group.rank:  # the first one tells and saves
        return
    rows, saved = [], []
    for (name, number), sae in zip(product(activations.sites, numbers), saes, strict=True):
        saved.append(sae.save(folder_of(name, number)))
        metrics = sae.info.metrics
        rows.append(
            {
                "site": name,
                "seed": number,
                "explained variance": metrics["explained_variance"],
                "L0": metrics["l0"],
                "dead share": metrics["dead_share"],
                "frames": int(metrics["frames"]),
            }
        )
    reports = [Report(f"SAEs of {called}", rows)]
    reports[0].save(out / "metrics.json")
    opened, sets = measured or (None, None)
    if opened and sets:
        by_site = {name: [sae for sae in saes if sae.info.site == name] for name in activations.sites}
        reports.append(evaluate(opened, by_site, *sets, progress=lambda jobs: track(jobs, "downstream")))
        reports[1].save(out / "downstream.json")
    if as_json:
        listed = [{**row, "folder": str(folder)} for row, folder in zip(rows, saved, strict=True)]
        print(to_json({"saes": listed, "downstream": reports[1].to_dict() if sets else None}))
        return
    for report in reports:
        report.print()


def filled_store(
    folder: Path, model: str | None, site: str | None, layers: str | None, batch: int | None
) -> ActivationStore:
    """The store that is trained on as it is, and which of its sites.

    Raises:
        TrainingError: options that need a model, or another model than the store's.
        StoreError: no store, a damaged one, or one without these sites.
    """
    from hooks.store import ActivationStore
    from steer.errors import TrainingError

    if layers is not None or batch is not None:
        flag = "--batch" if layers is None else "--layers"
        raise TrainingError(f"{flag}: needs sounds and a model; --store alone is trained on as it is, by --site")
    store = ActivationStore(folder, [name.strip() for name in site.split(",")] if site else None)
    if model not in (None, store.model):
        raise TrainingError(f"{folder}: holds activations of {store.model}, not {model}; leave --model out")
    return store


def seeds_in(text: str) -> list[int]:
    """Raises TrainingError if they are not whole numbers, or one is given twice."""
    from steer.errors import TrainingError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len({int(part) for part in parts}) < len(parts):
        raise TrainingError(f"--seeds: {text!r} is not a list of different whole numbers, such as 0,1,2")
    return [int(part) for part in parts]


def sites_in(model: AudioModel, site: str | None, layers: str | None) -> list[str]:
    """The sites that are meant.

    Raises:
        SiteError: one that the model does not have or that is given twice, or layers of a model without any.
    """
    from hooks import SiteError
    from hooks.model import Codec

    names = [name.strip() for name in site.split(",")] if site else []
    if layers is not None:
        # a codec's stages have names like those, but rates of their own up to that of the sound
        known = (
            [] if isinstance(model, Codec) else [name for name in model.sites if re.fullmatch(r"encoder\.\d+", name)]
        )
        if not known:
            raise SiteError(f"{model.name} has no encoder layers; name sites with --site (`steer models` lists them)")
        wanted = known if layers == "all" else [f"encoder.{part.strip()}" for part in layers.split(",")]
        if unknown := [name for name in wanted if name not in known]:
            layer = unknown[0].removeprefix("encoder.")
            raise SiteError(f"--layers: {model.name} has no layer {layer!r}; its layers are 0 to {len(known) - 1}")
        names += wanted
    names = names or ["latent"]
    for name in names:
        model.site(name)
        if names.count(name) > 1:
            raise SiteError(f"site {name!r} is given twice")
    return names

"""`steer train`: SAEs for sites of a model, from sound files or a store of activations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apps.messages import is_quiet
from apps.options import Json, Layers, of_where, output, panel, sites_option

if TYPE_CHECKING:  # loads torch: `steer --help` does not wait for it
    from evaluation.downstream import Sets
    from hooks import AudioModel
    from hooks.model import Source
    from hooks.store import ActivationStore
    from steer.sae import SAE
    from steer.training import TrainConfig

of_how, of_cost = map(panel, ("How", "What it costs downstream"))


@dataclass(frozen=True)
class Frames:
    """What is trained on: sounds, whose activations fill a store first, or a filled store alone."""

    inputs: Annotated[list[str] | None, typer.Argument(help="Sound files, folders or quoted globs.")] = None
    audio: Annotated[
        Path | None,
        typer.Option(help="Instead: folder of subsets with a manifest.csv each; only split train is trained on."),
    ] = None
    store: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the activations: with sounds it is filled (default: in the output), alone it is trained on."
        ),
    ] = None

    @property
    def filled(self) -> bool:
        """Whether it is a filled store alone."""
        return self.store is not None and not self.inputs and self.audio is None

    def check(self) -> None:
        """Raises TrainingError unless it is one of the three."""
        from steer.errors import TrainingError

        if not self.filled and bool(self.inputs) == (self.audio is not None):
            raise TrainingError(
                "say which sounds: either files, folders and globs, or --audio FOLDER, or --store alone, of a filled "
                "store"
            )

    def sounds(self) -> Sequence[Source]:
        """The files; of subsets the clips of split train, without recordings of rooms."""
        from apps.inputs import sounds_of
        from evaluation.dataset import IMPULSE_RESPONSE, Dataset

        if self.audio is None:
            return sounds_of(self.inputs or [])
        sounds = Dataset(self.audio, divide=True).sounds(None, "train", leave_out=[IMPULSE_RESPONSE])
        return [sound.source for sound in sounds]

    def described(self, folder: Path) -> str:
        """For the SAE's own notes; `folder` is the store."""
        if self.audio is not None:
            return f"{self.audio.resolve().name}, split train"
        return ", ".join(self.inputs or [folder.resolve().name])


@dataclass(frozen=True)
class Where:
    """Sites of a model, and the device."""

    model: Annotated[
        str | None, of_where(help="Name or folder; see `steer models`. Default: starter:codec, or the store's.")
    ] = None
    site: Annotated[str | None, sites_option("latent, or all of the store")] = None
    layers: Layers = None
    device: Annotated[
        str | None, of_where(help="Where model and SAEs run: cpu, cuda or cuda:1. Default: the GPU if there is one.")
    ] = None

    @property
    def called(self) -> str:
        """The model to open."""
        return self.model or "starter:codec"

    def opened(self) -> AudioModel:
        from hooks import open_model
        from steer.parallel import own_device

        return open_model(self.called, device=own_device(self.device))

    def in_store(self, folder: Path, batch: int | None) -> ActivationStore:
        """A filled store, which is trained on as it is, and which of its sites.

        Raises:
            TrainingError: options that need a model, or another model than the store's.
            StoreError: no store, a damaged one, or one without these sites.
        """
        from hooks.store import ActivationStore
        from steer.errors import TrainingError

        if self.layers is not None or batch is not None:
            flag = "--batch" if self.layers is None else "--layers"
            raise TrainingError(f"{flag}: needs sounds and a model; --store alone is trained on as it is, by --site")
        store = ActivationStore(folder, [name.strip() for name in self.site.split(",")] if self.site else None)
        if self.model not in (None, store.model):
            raise TrainingError(f"{folder}: holds activations of {store.model}, not {self.model}; leave --model out")
        return store


@dataclass(frozen=True)
class How:
    """How SAEs are trained, see `TrainConfig`."""

    activation: Annotated[str, of_how(help="relu, topk, batchtopk, jumprelu or gated.")] = "batchtopk"
    k: Annotated[int, of_how(help="Active features a frame, for topk and batchtopk.")] = 50
    expansion: Annotated[int, of_how(help="Features for each channel of the activation.")] = 8
    objective: Annotated[
        str,
        of_how(
            help="What is minimised: plain (the error), l1 or l0 (and a penalty), or matryoshka. Default: l1 for relu "
            "and gated, l0 for jumprelu, else plain.",
            show_default=False,
        ),
    ] = ""
    sparsity: Annotated[float, of_how(help="Weight of the penalty, l1 or l0.")] = 0.3
    steps: Annotated[int, of_how(help="Batches.")] = 20_000
    batch_size: Annotated[int, of_how(help="Frames a batch.")] = 4096
    lr: Annotated[float, of_how("--rate", help="Learning rate.")] = 5e-4
    minutes: Annotated[float, of_how(help="A checkpoint at least so often; there is one every 500 steps.")] = 5.0
    bf16: Annotated[bool, of_how("--bf16", help="Multiply in bfloat16: faster on some machines.")] = False
    seeds: Annotated[str, of_how("--seeds", "--seed", help="For the first weights, with commas.")] = "0"

    def configs(self, seeds: Sequence[int]) -> list[TrainConfig]:
        """One for each seed. Raises TrainingError if they make no sense."""
        from steer.training import TrainConfig, check_configs

        said = {one.name: getattr(self, one.name) for one in fields(TrainConfig) if hasattr(self, one.name)}
        configs = [TrainConfig(**said, seed=seed) for seed in seeds]
        check_configs(configs)
        return configs


@dataclass(frozen=True)
class Cost:
    """What SAEs cost a speech model."""

    downstream: Annotated[
        bool, of_cost(help="Measure it on valid clips: WER, or accuracy of probes. Needs --audio.")
    ] = True
    clips: Annotated[int, of_cost(min=1, help="At most this many clips of a subset and split.")] = 40

    def sets(self, model: AudioModel, audio: Path | None) -> Sets | None:
        """Clips to measure it on; None where it is not measured."""
        from evaluation.dataset import Dataset
        from evaluation.downstream import clip_sets

        if audio is None or not self.downstream or model.kind not in ("transcriber", "encoder"):
            return None
        return clip_sets(model, Dataset(audio, divide=True), self.clips)


def train(
    *,
    out: Annotated[Path, output("Folder for the SAEs, checkpoints and metrics.")],
    frames: Frames,
    where: Where,
    how: How,
    cost: Cost,
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
    from apps.flags import sites_in
    from apps.progress import track
    from evaluation.downstream import evaluate
    from evaluation.report import Report
    from hooks.store import ActivationStore
    from hooks.store_writing import fill
    from steer.parallel import process_group
    from steer.sae import SAEInfo
    from steer.training import train_saes
    from steer.training_data import BATCH

    seeds = seeds_in(how.seeds)
    frames.check()
    configs = how.configs(seeds)
    folder = frames.store or out / "activations"

    def prepared() -> tuple[AudioModel, Sets | None] | None:
        """Fill the store, unless it is a filled one; gives the model, and clips to measure on."""
        if frames.filled:
            check_folders(out, folders_of(out, where.in_store(folder, batch).sites, seeds).values())
            return None
        model = where.opened()
        sites = sites_in(model, where.site, where.layers)
        check_folders(out, folders_of(out, sites, seeds).values())
        sounds, sets = frames.sounds(), cost.sets(model, frames.audio)
        fill(folder, model, track(sounds, "activations"), sites, batch=batch or BATCH)
        return model, sets

    with process_group(where.device) as group:
        model, sets = group.once(prepared) or (None, None)
        store = where.in_store(folder, batch) if frames.filled else ActivationStore(folder)
        name = store.model if frames.filled else where.called
        saes = train_saes(
            store,
            configs,
            out,
            info=SAEInfo(model=name, data=data or frames.described(folder), license=license),
            device=where.device,
            progress=not (as_json or is_quiet()),
            checkpoint_minutes=how.minutes,
        )
    if group.rank:  # the first process saves and prints
        return
    folders = folders_of(out, store.sites, seeds)
    rows = saved(saes, folders)
    reports = [Report(f"SAEs of {name}", rows)]
    reports[0].save(out / "metrics.json")
    if model is not None and sets is not None:
        by_site = {site: [sae for sae in saes if sae.info.site == site] for site in store.sites}
        reports.append(evaluate(model, by_site, *sets, progress=lambda jobs: track(jobs, "downstream")))
        reports[1].save(out / "downstream.json")
    if as_json:
        listed = [{**row, "folder": str(place)} for row, place in zip(rows, folders.values(), strict=True)]
        print(to_json({"saes": listed, "downstream": reports[1].to_dict() if sets else None}))
        return
    for report in reports:
        report.print()


def saved(saes: Sequence[SAE], folders: Mapping[tuple[str, int], Path]) -> list[dict[str, Any]]:
    """Save each SAE in its folder; gives a row of what was measured of it."""
    rows = []
    for ((site, seed), folder), sae in zip(folders.items(), saes, strict=True):
        sae.save(folder)
        metrics = sae.info.metrics
        rows.append(
            {
                "site": site,
                "seed": seed,
                "explained variance": metrics["explained_variance"],
                "L0": metrics["l0"],
                "dead share": metrics["dead_share"],
                "frames": int(metrics["frames"]),
            }
        )
    return rows


def folders_of(out: Path, sites: Iterable[str], seeds: Sequence[int]) -> dict[tuple[str, int], Path]:
    """Where the SAE of each site and seed is saved."""
    several = len(seeds) > 1
    return {(site, seed): out / site / (f"seed-{seed}" if several else "") for site, seed in product(sites, seeds)}


def check_folders(out: Path, folders: Iterable[Path]) -> None:
    """Raises TrainingError where an SAE lies that another training wrote."""
    from steer.checkpoints import STATE
    from steer.errors import TrainingError
    from steer.formats import CFG

    for folder in folders:
        if (folder / CFG).exists() and not (out / STATE).exists():
            raise TrainingError(f"{folder}: holds an SAE that no training of ours wrote there; choose another folder")


def seeds_in(text: str) -> list[int]:
    """Raises TrainingError if they are not whole numbers, or one is given twice."""
    from steer.errors import TrainingError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len({int(part) for part in parts}) < len(parts):
        raise TrainingError(f"--seeds: {text!r} is not a list of different whole numbers, such as 0,1,2")
    return [int(part) for part in parts]

"""SAEs at all blocks of Whisper's encoder: `python -m training.whisper_saes prepare`, `train`, then `export`.

For each block a short training with each k, the smallest first, finds the k (`Criterion`); then one SAE a seed is
trained. Several processes train at once, because one alone leaves a GPU idle most of the time. An SAE is in its folder
as soon as it is done, RUN/MODEL/SITE/seed-N, as `steer train` names them, so `SAE.load_all(RUN/MODEL, seed=N)` reads
them. What is there is not trained again: the same call goes on where a stopped one was.
"""

from __future__ import annotations

import tarfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors import safe_open
from torch import Tensor

from hooks.files import whole_file
from steer.formats import CFG
from steer.sae import SAE, SAEInfo
from steer.thresholds import calibrate_threshold
from steer.training import TrainConfig, measure, train_sae
from training.job_pool import JobPool
from training.sae_plan import Budget, Criterion, Results
from training.whisper_frames import (
    SAMPLE_RATE,
    Sounds,
    block_sites,
    open_encoder,
    write_encoder,
    write_frames,
    write_valid,
)

FRAME_RATE = 50.0
MODELS, KS, SEEDS = "tiny.en,base", "16,24,32,48,64", "0,1,2"
RESULTS = "results.json"
FILE_LIMIT = 15 * 2**20
CALIBRATION_FRAMES = 2**15
DATA = "recordings of the train splits, sentences by espeak-ng, sound without speech made here; padding left out"
LICENSE = "Apache-2.0"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Frames:
    """A job: the frames of a model at some sites."""

    model: str
    sites: tuple[str, ...]


@dataclass(frozen=True)
class Training:
    """A job: a search for k at one site (no `k`), or an SAE."""

    model: str
    site: str
    steps: int
    seed: int = 0
    k: int = 0


@dataclass
class Trainer:
    """Does jobs, in a process of its own."""

    run: Path
    prepared: Path
    sounds: Sounds
    windows: int
    device: str
    batch: int
    expansion: int
    lr: float
    ks: tuple[int, ...]
    every_k: bool
    criterion: Criterion
    site: tuple[str, str] = ("", "")

    def frames(self, job: Training) -> tuple[Tensor, Tensor]:
        if self.site != (job.model, job.site):
            with safe_open(str(self.run / "frames" / job.model / f"{job.site}.safetensors"), "pt") as file:
                self.train_ND, self.valid_ND = (file.get_tensor(part).to(self.device) for part in ("train", "valid"))
            self.site = (job.model, job.site)
        return self.train_ND, self.valid_ND

    def __call__(self, job: Frames | Training) -> list[Any]:
        """How many frames there are for training and valid; or a row of results for each SAE that was trained."""
        if isinstance(job, Frames):
            model = open_encoder(self.prepared / f"{job.model}.safetensors", f"whisper:{job.model}", self.device)
            return write_frames(model, self.sounds, job.sites, self.run / "frames" / job.model, self.windows)
        if job.k:
            sae, row = self.trained(job, job.k)
            sae.save(self.run / job.model / job.site / f"seed-{job.seed}", torch.float16)
            return [row]
        rows: list[dict[str, Any]] = []
        for k in self.ks:
            rows.append(self.trained(job, k)[1])
            if self.criterion.met(rows[-1]) and not self.every_k:
                break
        return rows

    def trained(self, job: Training, k: int) -> tuple[SAE, dict[str, Any]]:
        """An SAE, rounded as it is stored, and what it does on valid frames."""
        train_ND, valid_ND = self.frames(job)
        started = time.monotonic()
        # `train_sae` measures on what it holds out: here that is done below, on other sounds
        config = TrainConfig(
            k=k,
            expansion=self.expansion,
            steps=job.steps,
            batch_size=self.batch,
            lr=self.lr,
            dead_after=len(train_ND),
            held_out=0.01,
            seed=job.seed,
        )
        info = SAEInfo(f"whisper:{job.model}", job.site, SAMPLE_RATE, FRAME_RATE, DATA, LICENSE)
        sae = train_sae(train_ND, config, info=info, device=self.device, progress=False).to(self.device)
        seconds = round(time.monotonic() - started, 2)
        with torch.no_grad():
            for value in sae.state_dict().values():
                value.copy_(value.half().float())
        # the one that training follows is behind by about 100 steps, which is much of a short training
        sae = calibrate_threshold(sae, train_ND[:: max(1, len(train_ND) // CALIBRATION_FRAMES)])
        seen, metrics = measure(sae, train_ND), measure(sae, valid_ND)
        metrics["explained_by_channel"] = explained_by_channel(sae, valid_ND)
        sae.info.metrics = metrics | {"dead_in_training": seen["dead_share"], "l0_in_training": seen["l0"]}
        row = {**asdict(job), "k": k, **sae.info.metrics, "seconds": seconds}
        return sae, row


@torch.no_grad()
def explained_by_channel(sae: SAE, x_ND: Tensor) -> float:
    """The mean over channels of their explained variances: a few channels may have most of the whole variance."""
    x_ND = x_ND.float()
    error_D = (x_ND - sae(x_ND)).square().mean(0)
    return float((1 - error_D / x_ND.var(0, correction=0).clamp(min=1e-12)).mean())


def ready(worker: Trainer, threads: int) -> Trainer:
    """Makes a process of the pool ready."""
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high")
    # what a device does but once is not to count as a step's time
    train_sae(torch.randn(512, 64), TrainConfig(k=4, steps=5, batch_size=256), device=worker.device, progress=False)
    return worker


@app.command()
def prepare(
    audio: Annotated[Path, typer.Argument(help="folder of subsets, each with a manifest.csv")],
    checkpoints: Annotated[list[Path], typer.Argument(help=".pt files of openai-whisper")],
    out: Annotated[Path, typer.Option(help="where NAME.safetensors of each and valid.safetensors go")],
) -> None:
    """Write what `train` needs beside the pack: encoders and valid clips."""
    out.mkdir(parents=True, exist_ok=True)
    made = [write_encoder(path, out / f"{path.stem}.safetensors") for path in checkpoints]
    for path in [*made, write_valid(audio, out / "valid.safetensors")]:
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


@app.command()
def train(
    prepared: Annotated[Path, typer.Argument(help="folder that `prepare` wrote")],
    pack: Annotated[Path, typer.Option(help="recordings, as training.pitched keeps them")],
    out: Annotated[Path, typer.Option(help="folder of this run")],
    models: Annotated[str, typer.Option(help="with commas")] = MODELS,
    layers: Annotated[str, typer.Option(help="of all models, with commas; all by default")] = "",
    seeds: Annotated[str, typer.Option(help="with commas; k is searched with the first")] = SEEDS,
    ks: Annotated[str, typer.Option(help="what is tried, with commas")] = KS,
    every_k: Annotated[bool, typer.Option(help="try all, also those behind the one that is taken")] = False,
    steps: Annotated[int, typer.Option(help="batches for each SAE")] = 2500,
    least_steps: Annotated[int, typer.Option(help="so few where --seconds would not be enough; 0: always --steps")] = 0,
    search_steps: Annotated[int, typer.Option(help="batches for each k")] = 500,
    batch: Annotated[int, typer.Option(help="frames in a batch")] = 4096,
    expansion: Annotated[int, typer.Option(help="features for each channel")] = 8,
    rate: Annotated[float, typer.Option(help="learning rate")] = 5e-4,
    windows: Annotated[int, typer.Option(help="windows that the encoder takes at once")] = 32,
    per_group: Annotated[int, typer.Option(help="at most so many clips of a collection; 0: all")] = 0,
    nonspeech: Annotated[int, typer.Option(help="sounds without speech")] = 140,
    processes: Annotated[int, typer.Option(help="that train at once")] = 6,
    threads: Annotated[int, typer.Option(help="CPU threads of each")] = 1,
    seconds: Annotated[float, typer.Option(help="end after so long with what is there")] = float("inf"),
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cuda" if torch.cuda.is_available() else "cpu",
) -> None:
    """Take frames, search k, train; the first seed of all models first."""
    started = time.monotonic()
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high")
    out.mkdir(parents=True, exist_ok=True)
    results = Results(out / RESULTS)
    names, numbers, criterion = models.split(","), [int(seed) for seed in seeds.split(",")], Criterion()
    sounds = Sounds(pack, prepared / "valid.safetensors", per_group, nonspeech)
    budget = Budget(started + seconds, processes, steps, least_steps, settled=results.content["steps"])

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {text}", flush=True)

    def add(name: str, site: str) -> None:
        """The jobs of a site: the search, or what follows it."""
        place = names.index(name), int(site.split(".")[1])
        rows = results.search(name, site)
        if not rows:
            pool.add((0, *place), Training(name, site, search_steps, numbers[0]))
            return
        for rank, seed in enumerate(numbers):
            if not (out / name / site / f"seed-{seed}" / CFG).exists():
                pool.add((rank, *place), Training(name, site, budget.steps(), seed, criterion.chosen(rows)))

    chosen = [int(layer) for layer in layers.split(",") if layer]
    sites = {name: tuple(block_sites(prepared / f"{name}.safetensors", chosen)) for name in names}
    budget.expect(sum(map(len, sites.values())) * len(numbers))
    k_values = tuple(map(int, ks.split(",")))
    worker = Trainer(out, prepared, sounds, windows, device, batch, expansion, rate, k_values, every_k, criterion)
    with JobPool(processes, ready, worker, threads) as pool:
        for index, name in enumerate(names):
            if all((out / "frames" / name / f"{site}.safetensors").exists() for site in sites[name]):
                for site in sites[name]:
                    add(name, site)
            else:
                pool.add((-1, index), Frames(name, sites[name]))
        for job, rows in pool.results(started + seconds):
            if isinstance(rows, str):
                say(f"{job}: {rows}")
            elif isinstance(job, Frames):
                results.content["frames"][job.model] = rows
                say(f"{job.model}: {rows[0]} frames for training, {rows[1]} valid ones")
                for site in job.sites:
                    add(job.model, site)
            else:
                results.content["saes" if job.k else "search"] += rows
                for row in rows:
                    say(line_of(row))
                if not job.k:
                    budget.note(sum(row["seconds"] for row in rows) / sum(row["steps"] for row in rows))
                    add(job.model, job.site)
            results.content["steps"] = budget.settled
            results.save()
    wanted = [(name, site, seed) for name in names for site in sites[name] for seed in numbers]
    missing = [one for one in wanted if not (out / one[0] / one[1] / f"seed-{one[2]}" / CFG).exists()]
    say(f"{len(wanted) - len(missing)} SAEs are there, {len(missing)} are missing")


def line_of(row: dict[str, Any]) -> str:
    return (
        f"{row['model']} {row['site']} k {row['k']} seed {row['seed']}: explained {row['explained_variance']:.3f} "
        f"(mean of channels {row['explained_by_channel']:.3f}), "
        f"L0 {row['l0']:.1f}, dead {row['dead_share']:.3f} (training {row['l0_in_training']:.1f}, "
        f"{row['dead_in_training']:.3f}), "
        f"{row['steps']} steps in {row['seconds']} s"
    )


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="folder of the run")],
    what: Annotated[str, typer.Option(help="MODEL:SEED, with commas")],
    out: Annotated[Path, typer.Option(help="where the files go")],
    limit: Annotated[int, typer.Option(help="bytes of a file")] = FILE_LIMIT,
) -> None:
    """Pack SAEs into a few tar files that `tar -xf` unpacks to folders as those of the run."""
    out.mkdir(parents=True, exist_ok=True)
    folders = []
    for name, seed in (one.split(":") for one in what.split(",")):
        folders += sorted(path.parent for path in (run / name).glob(f"*/seed-{seed}/{CFG}"))
    parts: list[list[Path]] = []
    sizes = {
        folder: sum(-(-file.stat().st_size // 512) * 512 + 1024 for file in folder.iterdir()) for folder in folders
    }
    for folder in folders:
        if parts and sum(sizes[one] for one in parts[-1]) + sizes[folder] + 10240 <= limit:
            parts[-1].append(folder)
        else:
            parts.append([folder])
    for number, part in enumerate(parts):
        path = out / f"{what.replace(':', '-').replace(',', '_')}-{number}.tar"
        with whole_file(path) as partial, tarfile.open(partial, "w") as tar:
            for folder in part:
                tar.add(folder, str(folder.relative_to(run)))
        print(f"{path}: {len(part)} SAEs, {path.stat().st_size / 2**20:.1f} MiB")
    if (run / RESULTS).exists():
        (out / RESULTS).write_bytes((run / RESULTS).read_bytes())


if __name__ == "__main__":
    app()

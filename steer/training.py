"""`train_sae` and `train_saes`: SAEs from stored activations, one or many (sites, seeds, sweeps) on one stream of batches.

Activations are scaled to a mean length of sqrt(D), so that learning rates and penalties mean the same at every site; the
scale is folded into the weights at the end, so that a finished SAE takes activations as they are. The order of batches
depends on the step alone, and nothing else in training is random: a run that was killed and goes on ends at the same
weights as one that was not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from hooks.files import whole_file
from hooks.store import ActivationStore, SiteFrames, Span, random_blocks, shuffled
from steer.errors import SAEError, TrainingError
from steer.objectives import OBJECTIVES, auxiliary, follow_threshold, rms_of
from steer.sae import SAE, SAEInfo

Frames = Tensor | SiteFrames
Data = ActivationStore | Frames | Mapping[str, Frames]

STATE, LOG, CURVE = "state.pt", "log.jsonl", "loss.png"
SAMPLE_FRAMES = 2**15
LOG_EVERY = 100


@dataclass(frozen=True)
class TrainConfig:
    """How to train one SAE; the defaults (BatchTopK, k = 50, 8-fold) are those of AudioSAE.

    `activation` and `k` are as in `SAE`; with `rms_norm` the features are divided by their root mean square.
    `expansion` is d_sae / d_in.
    `sparsity` weighs the penalty of relu and gated (on the sum of features) and jumprelu (on their count) against the
    squared error of a vector whose length is about sqrt(D).
    `steps` batches of `batch_size` frames with learning rate `lr` (Adam; warm-up, and a linear end).
    A feature that was silent for `dead_after` frames is dead and gets an auxiliary loss.
    `held_out` is the share of frames that is kept for the metrics.
    `seed` makes the first weights; batches come in the same order for every seed.
    """

    activation: str = "batchtopk"
    k: int = 50
    expansion: int = 8
    rms_norm: bool = False
    sparsity: float = 0.3
    steps: int = 20_000
    batch_size: int = 4096
    lr: float = 5e-4
    dead_after: int = 1_000_000
    held_out: float = 0.05
    seed: int = 0


class Trainee:
    """One SAE in training: its weights in the normalised space, its optimiser, and how long each feature was silent."""

    def __init__(self, site: str, config: TrainConfig, sample_ND: Tensor, device: torch.device) -> None:
        self.site, self.config = site, config
        width = sample_ND.shape[1]
        self.scale = math.sqrt(width) / float(sample_ND.norm(dim=1).mean().clamp(min=1e-12))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            sae = SAE(width, width * config.expansion, config.activation, config.k, rms_norm=config.rms_norm)
        sae.requires_grad_(True)
        with torch.no_grad():
            sae.b_dec.copy_(self.scale * sample_ND.mean(0))
            if config.activation == "jumprelu":
                sae.threshold.fill_(0.1)
            if config.rms_norm:
                # the features' length is fixed at sqrt(d_sae), and the decoder brings it to that of the activations
                sae.W_dec.mul_(math.sqrt(width / sae.d_sae))
        if config.activation == "batchtopk":
            sae.threshold.requires_grad_(False)
        self.sae = sae.to(device)
        self.optimizer = torch.optim.Adam([p for p in self.sae.parameters() if p.requires_grad], lr=config.lr)
        self.silent_F = torch.zeros(sae.d_sae, dtype=torch.long, device=device)

    def step(self, x_ND: Tensor, step: int) -> dict[str, Tensor]:
        """One batch [N, D] of activations as they are. Gives the terms of the loss."""
        sae, config = self.sae, self.config
        x_ND = x_ND * self.scale
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * rate_at(step, config.steps)
        run = OBJECTIVES[config.activation](sae, x_ND, config.sparsity)
        error_ND = x_ND - sae.decode(run.f_NF / rms_of(sae, run.f_NF))
        error = error_ND.square().sum(-1).mean()
        loss = error + run.penalty
        dead = (self.silent_F > config.dead_after).nonzero()[:, 0]
        if len(dead):
            loss = loss + auxiliary(sae, error_ND, run, dead)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        unit_rows = not config.rms_norm
        if unit_rows:
            remove_parallel_gradient(sae)
        nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            if unit_rows:
                sae.W_dec.copy_(nn.functional.normalize(sae.W_dec, dim=1))
            if config.activation == "jumprelu":
                sae.threshold.clamp_(min=0)
            if config.activation == "batchtopk":
                # a plain mean of the first batches, then one over about 100
                follow_threshold(sae, run.f_NF, max(0.01, 1 / (step + 1)))
            fired_F = (run.f_NF > 0).any(0)
            self.silent_F = torch.where(fired_F, 0, self.silent_F + len(x_ND))
        active = (run.f_NF > 0).sum(-1).float().mean()
        total = (x_ND - x_ND.mean(0)).square().sum(-1).mean()
        return {"loss": loss, "explained_variance": 1 - error / total, "l0": active, "dead": self.silent_F > config.dead_after}

    def finished(self) -> SAE:
        """A copy that takes activations as they are."""
        sae = SAE(
            self.sae.d_in, self.sae.d_sae, self.config.activation, self.config.k, rms_norm=self.config.rms_norm
        )
        sae.load_state_dict({name: value.detach().cpu() for name, value in self.sae.state_dict().items()})
        return fold_scale(sae, self.scale).eval().requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        optimizer = self.optimizer.state_dict()
        return {"sae": self.sae.state_dict(), "optimizer": optimizer, "silent": self.silent_F, "scale": self.scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sae.load_state_dict(state["sae"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.silent_F = state["silent"].to(self.silent_F.device)
        self.scale = state["scale"]


def rate_at(step: int, steps: int) -> float:
    """Learning rate as a share of its peak: up over the first 5 % (1000 steps at most), down over the last 20 %."""
    warm = max(1, min(1000, steps // 20))
    return min(1.0, (step + 1) / warm, (steps - step) / max(1.0, 0.2 * steps))


def remove_parallel_gradient(sae: SAE) -> None:
    """Keep only what turns the decoder's rows: their length is fixed, and Adam must not store what cannot be used."""
    grad = sae.W_dec.grad
    assert grad is not None
    grad -= (grad * sae.W_dec.detach()).sum(1, keepdim=True) * sae.W_dec.detach()


@torch.no_grad()
def fold_scale(sae: SAE, scale: float) -> SAE:
    """Change an SAE that was trained on scale * x so that it takes x, with the same features. In place."""
    sae.W_enc.mul_(scale)
    sae.W_dec.div_(scale)
    sae.b_dec.div_(scale)
    return sae


@torch.no_grad()
def measure(sae: SAE, frames: Frames, spans: Sequence[Span] | None = None) -> dict[str, float]:
    """Metrics of an SAE on frames [N, D] (or on some spans of them).

    `explained_variance` is 1 - squared error / squared distance from the mean, both summed over all frames and channels;
    `l0` is the number of active features a frame, `dead_share` the share of features that no frame activates.
    """
    device = sae.W_enc.device
    error = square = 0.0
    sum_D = torch.zeros(sae.d_in, dtype=torch.float64, device=device)
    fired_F = torch.zeros(sae.d_sae, dtype=torch.bool, device=device)
    count = active = 0
    for begin, end in spans or [(0, len(frames))]:
        for start in range(begin, end, 8192):
            x_ND = frames[start : min(start + 8192, end)].to(device, torch.float32)
            f_NF = sae.encode(x_ND)
            error += float((x_ND - sae.decode(f_NF)).double().square().sum())
            square += float(x_ND.double().square().sum())
            sum_D += x_ND.double().sum(0)
            fired_F |= (f_NF > 0).any(0)
            active += int((f_NF > 0).sum())
            count += len(x_ND)
    spread = square - float(sum_D.square().sum()) / count
    return {
        "explained_variance": 1 - error / max(spread, 1e-12),
        "l0": active / count,
        "dead_share": float((~fired_F).float().mean()),
        "frames": float(count),
    }


def train_sae(data: Data, config: TrainConfig | None = None, folder: str | Path | None = None, **options: Any) -> SAE:
    """Train one SAE on the frames [N, D] of one site; arguments, files and errors as in `train_saes`.

    The SAE itself is saved in `folder` too.
    """
    (sae,) = train_saes(data, [config or TrainConfig()], folder, **options)
    if folder is not None:
        sae.save(folder)
    return sae


def train_saes(
    data: Data,
    configs: Sequence[TrainConfig],
    folder: str | Path | None = None,
    *,
    info: SAEInfo | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    checkpoint_every: int = 500,
) -> list[SAE]:
    """Train an SAE for every site in `data` and every config, all on the same batches: [site 0 config 0, site 0 config 1, ...].

    `data` is a store, frames [N, D], or {site: frames}. With a `folder` a checkpoint is written there every
    `checkpoint_every` steps, and the same call goes on from it; `log.jsonl` holds losses, `loss.png` draws them (if
    matplotlib is there). `info` is copied into each SAE, to which site, training and the metrics on held-out frames are
    added. `device` is by default the GPU if there is one.

    Raises:
        TrainingError: no frames or frames that are not finite, configs that cannot share batches, a config that makes no
            sense, a checkpoint of another training, or a loss that is not finite.
    """
    sites, info = sites_of(data, info or SAEInfo())
    check_configs(configs)
    shared = configs[0]
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    spans = {site: random_blocks(len(frames), shared.held_out) for site, frames in sites.items()}
    trainees: list[Trainee] = []
    for site, frames in sites.items():
        sample_ND = next(shuffled(frames, spans[site][0], min(SAMPLE_FRAMES, len(frames)))).float()
        if not torch.isfinite(sample_ND).all():
            raise TrainingError(f"site {site!r}: there are activations that are not finite (NaN or infinite)")
        try:
            trainees += [Trainee(site, config, sample_ND, device) for config in configs]
        except SAEError as error:
            raise TrainingError(str(error)) from error
    run = Run(Path(folder) if folder else None, trainees, {site: list(frames.shape) for site, frames in sites.items()})
    first = run.resume()
    streams = {site: shuffled(f, spans[site][0], shared.batch_size, start=first) for site, f in sites.items()}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task("training", total=shared.steps, completed=first)
        for step in range(first, shared.steps):
            batches = {site: next(stream).to(device, torch.float32) for site, stream in streams.items()}
            terms = [trainee.step(batches[trainee.site], step) for trainee in trainees]
            if (step + 1) % LOG_EVERY == 0 or step + 1 == shared.steps:
                line = run.note(step + 1, terms)
                bar.update(task, description=f"explained {line['explained_variance'][0]:.1%}, L0 {line['l0'][0]:.0f}")
            if (step + 1) % checkpoint_every == 0 or step + 1 == shared.steps:
                run.save(step + 1)
            bar.advance(task)
    saes = []
    for trainee in trainees:
        sae = trainee.finished()
        held_out = spans[trainee.site][1] or spans[trainee.site][0]
        metrics = measure(sae.to(device), sites[trainee.site], held_out)
        sae.info = replace(info, metrics=metrics, extra={**info.extra, "training": asdict(trainee.config)})
        sae.info.site = trainee.site or info.site
        if isinstance(data, ActivationStore):
            sae.info.frame_rate = data.sites[trainee.site]["frame_rate"]
        saes.append(sae.cpu())
    return saes


def sites_of(data: Data, info: SAEInfo) -> tuple[dict[str, Frames], SAEInfo]:
    """{site: frames}, and what a store knows of its model."""
    sites: dict[str, Frames]
    if isinstance(data, ActivationStore):
        sites = {site: data.frames(site) for site in data.sites}
        info = replace(info, model=info.model or data.model, sample_rate=info.sample_rate or data.sample_rate)
    else:
        sites = dict(data) if isinstance(data, Mapping) else {"": data}
    for site, frames in sites.items():
        if len(frames.shape) != 2 or len(frames) < 32:
            raise TrainingError(f"site {site!r}: training needs frames [N, D], 32 or more, not {list(frames.shape)}")
    return sites, info


def check_configs(configs: Sequence[TrainConfig]) -> None:
    if not configs:
        raise TrainingError("there is nothing to train: no config was given")
    for name in ("steps", "batch_size", "held_out"):
        if len({getattr(config, name) for config in configs}) > 1:
            raise TrainingError(f"SAEs that are trained together need the same {name}")
    for config in configs:
        if min(config.steps, config.batch_size, config.expansion) < 1 or not 0 <= config.held_out < 1 or config.lr <= 0:
            raise TrainingError("steps, batch_size, expansion and lr have to be positive, and held_out from 0 to below 1")


class Run:
    """A training's folder: checkpoint, log and loss curve. Without a folder nothing is written."""

    def __init__(self, folder: Path | None, trainees: list[Trainee], shapes: dict[str, list[int]]) -> None:
        self.folder, self.trainees = folder, trainees
        self.key = {"configs": [asdict(trainee.config) for trainee in trainees], "frames": shapes}
        self.lines: list[dict[str, Any]] = []
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise TrainingError(f"{folder}: cannot write there ({error.strerror})") from error

    def resume(self) -> int:
        """Go on from the checkpoint, if there is one: the number of steps that are done."""
        if self.folder is None or not (self.folder / STATE).exists():
            return 0
        try:
            state = torch.load(self.folder / STATE, map_location="cpu", weights_only=True)
            key, step, trainees = state["key"], state["step"], state["trainees"]
        except Exception as error:  # torch raises a dozen kinds for damaged files
            raise TrainingError(f"{self.folder / STATE}: cannot be read ({str(error).splitlines()[0]})") from error
        if key != self.key:
            raise TrainingError(f"{self.folder}: holds a checkpoint of another training; choose another folder")
        for trainee, saved in zip(self.trainees, trainees, strict=True):
            trainee.load_state_dict(saved)
        self.lines = state["lines"]
        return step

    def note(self, step: int, terms: list[dict[str, Tensor]]) -> dict[str, Any]:
        """Add a line to the log.

        Raises:
            TrainingError: a loss is not finite.
        """
        columns = {name: [round(float(t[name].float().mean()), 6) for t in terms] for name in terms[0]}
        if not all(math.isfinite(loss) for loss in columns["loss"]):
            raise TrainingError(f"step {step}: the loss is not finite; lower lr, or look for NaN in the activations")
        self.lines.append({"step": step, **columns})
        return self.lines[-1]

    def save(self, step: int) -> None:
        if self.folder is None:
            return
        states = [trainee.state_dict() for trainee in self.trainees]
        try:
            with whole_file(self.folder / STATE) as path:
                torch.save({"key": self.key, "step": step, "trainees": states, "lines": self.lines}, path)
            with whole_file(self.folder / LOG) as path:
                path.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
            draw_losses(self.lines, self.folder / CURVE)
        except (OSError, RuntimeError) as error:
            raise TrainingError(f"{self.folder}: the checkpoint could not be written ({error})") from error


def draw_losses(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Loss and explained variance over steps, as a PNG; nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(8, 3), layout="constrained")
    steps = [line["step"] for line in lines]
    for axes, name in zip(figure.subplots(1, 2), ("loss", "explained_variance"), strict=True):
        axes.plot(steps, [line[name] for line in lines])
        axes.set(xlabel="step", title=name.replace("_", " "))
    figure.axes[0].set_yscale("log")
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=120)

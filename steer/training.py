"""`train_sae`, `train_saes`: SAEs from stored activations, one or many (sites, seeds, sweeps) on one stream of batches.

Activations are scaled to a mean length of sqrt(D), so that learning rates and penalties mean the same at every site;
the scale is folded into the weights at the end, so that a finished SAE takes activations as they are. The order of
batches depends on the step alone, nothing else in training is random, and a checkpoint names the library that
multiplied: a run that was killed and goes on ends at the same weights as one that was not.

Under torchrun the processes share the rows of the same batches (`steer.parallel`), and only the first one writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from hooks.errors import one_line
from hooks.model import AudioModel, Source
from hooks.precision import widest
from hooks.shuffle import Span, shuffled
from hooks.site import names_of
from hooks.store import ActivationStore
from hooks.threads import busy_notice
from steer.activations import ACTIVATIONS
from steer.checkpoints import Run
from steer.errors import SAEError, TrainingError
from steer.matmul import using
from steer.objectives import Objective, objective_of
from steer.parallel import ALONE, Group, own_device, process_group
from steer.sae import SAE, SAEInfo
from steer.schedule import Schedule, interrupts_noted
from steer.trainee import SCHEDULES, TrainConfig, Trainee
from steer.training_data import Data, Frames, HeldOut, captured, divided, sites_of

Callback = Callable[[dict[str, Any]], None]

SAMPLE_FRAMES = 2**15
WATCH_EVERY = 20
"""Steps between two looks at the held-out frames, where a config has `patience`."""
LOG_EVERY = 100


@dataclass(frozen=True)
class Manner:
    """How a training shows and saves itself, as in `train_saes`."""

    progress: bool
    every: int
    minutes: float | None
    callback: Callback | None


@torch.no_grad()
def measure(sae: SAE, frames: Frames, spans: Sequence[Span] | None = None, group: Group = ALONE) -> dict[str, float]:
    """Metrics of an SAE on frames [N, D] (or on some spans of them, which the processes of a group share).

    `explained_variance` is 1 - squared error / squared distance from the mean, both summed over all frames and
    channels; `l0` is the number of active features a frame, `dead_share` the share of features that no frame activates.
    """
    device = sae.W_enc.device
    wide = widest(device)
    error = square = torch.zeros((), dtype=wide, device=device)
    sum_D = torch.zeros(sae.d_in, dtype=wide, device=device)
    active_F = torch.zeros(sae.d_sae, dtype=torch.long, device=device)
    count = torch.zeros((), dtype=torch.long, device=device)
    for begin, end in (spans or [(0, len(frames))])[group.rank :: group.size]:
        for start in range(begin, end, 8192):
            x_ND = frames[start : min(start + 8192, end)].to(device, torch.float32)
            f_NF = sae.encode(x_ND)
            error = error + (x_ND - sae.decode(f_NF, x_ND)).to(wide).square().sum()
            square = square + x_ND.to(wide).square().sum()
            sum_D += x_ND.to(wide).sum(0)
            active_F += (f_NF > 0).sum(0)
            count += len(x_ND)
    error, square, sum_D, active_F, count = map(group.sum, (error, square, sum_D, active_F, count))
    spread = float(square) - float(sum_D.square().sum()) / int(count)
    return {
        "explained_variance": 1 - float(error) / max(spread, 1e-12),
        "l0": int(active_F.sum()) / int(count),
        "dead_share": float((active_F == 0).float().mean()),
        "frames": float(count),
    }


def train_sae(
    data: Data | Iterable[Source],
    config: TrainConfig | None = None,
    folder: str | Path | None = None,
    *,
    objective: str | Objective | None = None,
    **options: Any,
) -> SAE:
    """Train one SAE on the frames [N, D] of one site; arguments, files and errors as in `train_saes`.

    The SAE itself is saved in `folder` too. `objective`, a name or a function (`steer.objectives`), takes the place of
    the config's.
    """
    config = config or TrainConfig()
    if objective is not None:
        config = replace(config, objective=objective)
    from_sounds = options.get("model") is not None
    names = names_of(options.get("sites") or "") if from_sounds else sites_of(cast("Data", data), SAEInfo())[0]
    if len(names) != 1:
        raise TrainingError("there are several sites: use train_saes, or pass {site: frames} of one")
    with process_group(options.get("device")) as group:
        (sae,) = train_saes(data, [config], folder, **options)
        if folder is not None:
            group.once(lambda: sae.save(folder))
    return sae


def train_saes(
    data: Data | Iterable[Source],
    configs: Sequence[TrainConfig],
    folder: str | Path | None = None,
    *,
    model: AudioModel | nn.Module | None = None,
    sites: str | Sequence[str] | None = None,
    validation: Data | None = None,
    info: SAEInfo | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    checkpoint_every: int = 500,
    checkpoint_minutes: float | None = 5.0,
    callback: Callback | None = None,
) -> list[SAE]:
    """Train an SAE for every site in `data` and every config, on the same batches: [site 0 config 0, config 1, ...].

    `data` is a store, frames [N, D], or {site: frames}. With a `model` it is sounds, which are run through it first;
    what passes at `sites` is stored in the folder's `activations` (sounds that are there are not run again), or until
    the training ends, where there is no folder.

    `validation` has the held-out frames, in the form of `data`; all of `data` is then trained on, whatever `held_out`
    is.

    With a `folder` a checkpoint is written there every `checkpoint_every` steps and `checkpoint_minutes`, and on
    Ctrl-C, which ends the training behind the present step (a second one at once). The same call goes on from it, to
    the same weights, bit for bit, on the same processor with the same torch and number of threads (a warning says where
    they differ). `log.jsonl` holds losses, `loss.png` draws them (if matplotlib is there). `callback` gets each line of
    the log as a dict: `step`, and `loss`, `explained_variance`, `l0` and `dead_share` as lists with a number for each
    SAE. `info` is copied into each SAE, to which site, training and the metrics on held-out frames are added. `device`
    is by default the GPU if there is one.

    Where torch.distributed is initialised, or torchrun started several processes, they train together: all have to make
    this call, with the same data and the same folder, and all get the SAEs. The losses are those of one process but for
    the order in which floats are added. Only the first process writes, and a run may go on with another number of them.

    Raises:
        TrainingError: no frames or frames that are not finite, configs that cannot share batches, a config that makes
            no sense, a checkpoint of another training, a loss that is not finite, a batch that the processes cannot
            share equally, another process that failed, or a device that cannot be used.
    """
    with process_group(device) as group, ExitStack() as stack:
        if model is not None:
            data = stack.enter_context(captured(cast("Iterable[Source]", data), model, sites, folder, group))
        return train_with(
            group,
            cast("Data", data),
            configs,
            folder,
            info or SAEInfo(),
            usable(own_device(device)),
            Manner(progress, checkpoint_every, checkpoint_minutes, callback),
            validation,
        )


def usable(device: torch.device) -> torch.device:
    """The same; raises TrainingError where torch cannot use it."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # each kind of device has its own
        raise TrainingError(f"device {str(device)!r} cannot be used here ({one_line(error)})") from error
    return device


def train_with(
    group: Group,
    data: Data,
    configs: Sequence[TrainConfig],
    folder: str | Path | None,
    info: SAEInfo,
    device: torch.device,
    manner: Manner,
    validation: Data | None = None,
) -> list[SAE]:
    """`train_saes` as one process of a group."""
    sites, info = sites_of(data, info)
    check_configs(configs, group.size, validation is not None)
    spans, held_out = divided(sites, configs[0].held_out, validation)
    trainees: list[Trainee] = []
    for site, frames in sites.items():
        sample_ND = next(shuffled(frames, spans[site], min(SAMPLE_FRAMES, len(frames)))).float()
        if not torch.isfinite(sample_ND).all():
            raise TrainingError(f"site {site!r}: there are activations that are not finite (NaN or infinite)")
        try:
            trainees += [Trainee(site, config, sample_ND, device, group) for config in configs]
        except SAEError as error:
            raise TrainingError(str(error)) from error
    shapes = {site: list(frames.shape) for site, frames in sites.items()}
    if validation is not None:
        shapes |= {f"{site} (validation)": list(one.frames.shape) for site, one in held_out.items()}
    run = Run(Path(folder) if folder else None, trainees, shapes, device)
    first = run.resume()
    starts = group.together(lambda: (run.key, first))
    if any(start != starts[0] for start in starts):
        raise TrainingError("the processes were given other data or configs, or do not see the same folder")
    group.once(run.make_folder)
    with using(run.product):
        return trained(group, run, first, data, info, sites, spans, held_out, device, manner)


def trained(
    group: Group,
    run: Run,
    first: int,
    data: Data,
    info: SAEInfo,
    sites: Mapping[str, Frames],
    spans: Mapping[str, list[Span]],
    held_out: Mapping[str, HeldOut],
    device: torch.device,
    manner: Manner,
) -> list[SAE]:
    """The SAEs of a run after its steps from `first` on."""
    trainees, shared = run.trainees, run.trainees[0].config
    watching = any(trainee.watch.patience for trainee in trainees)
    watched = {site: one.sample().to(device) for site, one in held_out.items()} if watching else {}
    # without a folder there is nothing to save first
    noted = interrupts_noted() if run.folder else nullcontext(lambda: False)
    streams = {site: shuffled(f, spans[site], shared.batch_size, start=first) for site, f in sites.items()}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    quiet = not manner.progress or group.rank > 0
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar, noted as asked:
        schedule = Schedule(group, shared.steps, manner.every, manner.minutes, asked)
        if not quiet and device.type == "cpu" and (notice := busy_notice()):
            bar.console.print(notice)
        task = bar.add_task("training", total=shared.steps, completed=first)
        for step in range(first, shared.steps):
            if all(trainee.watch.done for trainee in trainees):
                break
            batches = {site: group.rows(next(stream)).to(device, torch.float32) for site, stream in streams.items()}
            done = step + 1
            due = schedule.due(done)
            looked = watching and (done % WATCH_EVERY == 0 or done == shared.steps)
            logged = schedule.regular(done) or done % LOG_EVERY == 0
            terms = [trainee.step(batches[trainee.site], step, due or logged or looked) for trainee in trainees]
            if looked:
                for trainee in trainees:
                    if trainee.watch.patience:
                        trainee.look(watched[trainee.site], done)
                if all(trainee.watch.done for trainee in trainees):
                    due = logged = True
            if due or logged:  # a loss is looked at before it is saved
                line = run.line(done, terms)
                bar.update(task, description=f"explained {line['explained_variance'][0]:.1%}, L0 {line['l0'][0]:.0f}")
            if logged:
                run.lines.append(line)
                if manner.callback and group.rank == 0:
                    manner.callback(line)
            if due:
                group.once(partial(run.save, done))
            bar.advance(task)
            if schedule.stopped:
                if not quiet:
                    bar.console.print(f"stopped after step {done}; the same call goes on from there")
                raise KeyboardInterrupt
    saes = []
    for trainee in trainees:
        sae = trainee.finished()
        kept = held_out[trainee.site]
        metrics = measure(sae.to(device), kept.frames, kept.spans, group)
        sae.info = replace(info, metrics=metrics, extra={**info.extra, "training": trainee.config.to_dict()})
        sae.info.site = trainee.site or info.site
        if isinstance(data, ActivationStore):
            sae.info.frame_rate = data.sites[trainee.site]["frame_rate"]
        saes.append(sae.cpu())
    return saes


def check_configs(configs: Sequence[TrainConfig], processes: int = 1, validation: bool = False) -> None:
    """Raises TrainingError for what can be told without data: numbers that make no sense, names that are not there."""
    if not configs:
        raise TrainingError("there is nothing to train: no config was given")
    for name in ("steps", "batch_size", "held_out"):
        if len({getattr(config, name) for config in configs}) > 1:
            raise TrainingError(f"SAEs that are trained together need the same {name}")
    for config in configs:
        try:
            _ = ACTIVATIONS[config.activation]
        except SAEError as error:
            raise TrainingError(str(error)) from error
        objective_of(config.objective)
        sizes = (config.steps, config.batch_size, config.expansion, 1 if config.d_sae is None else config.d_sae)
        if min(sizes) < 1 or not 0 <= config.held_out < 1 or config.lr <= 0:
            raise TrainingError(
                "steps, batch_size, expansion, d_sae and lr have to be positive, and held_out from 0 to below 1"
            )
        if config.schedule not in SCHEDULES:
            raise TrainingError(f"unknown schedule {config.schedule!r}; there are {', '.join(SCHEDULES)}")
        if config.eps <= 0 or config.patience < 0:
            raise TrainingError("eps has to be positive, and patience 0 or more steps")
        if config.patience and not (config.held_out or validation):
            raise TrainingError("patience needs held-out frames: held_out above 0, or validation")
    if configs[0].batch_size % processes:
        raise TrainingError(
            f"{processes} processes cannot share batches of {configs[0].batch_size} frames equally: "
            f"choose a batch_size that {processes} divides"
        )


__all__ = ["TrainConfig", "measure", "train_sae", "train_saes"]

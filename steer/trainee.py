"""`Trainee`: one SAE in training, step by step, in the normalised space; and `TrainConfig`, which says how."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hooks.random_numbers import seeded
from steer.errors import TrainingError
from steer.objectives import Objective, name_of, objective_of
from steer.parallel import ALONE, Group
from steer.passes import auxiliary, run_pass
from steer.sae import SAE


@dataclass(frozen=True)
class TrainConfig:
    """How to train one SAE; the defaults (BatchTopK, k = 50, 8-fold) are those of AudioSAE.

    `activation` and `k` are as in `SAE`; with `rms_norm` the features are divided by their root mean square.
    `expansion` is d_sae / d_in; a `d_sae` that is given takes its place.
    `objective` is what is minimised, a name or a function (see `steer.objectives`), which checkpoints know by its name;
    without one the error and l1 for relu and gated, l0 for jumprelu, and the error alone for the others.
    `sparsity` weighs its penalty (l1: on the sum of the features, l0: on their count) against the squared error of a
    vector whose length is about sqrt(D).
    `steps` batches of `batch_size` frames with learning rate `lr` (Adam; warm-up, and a linear end).
    A feature that was silent for `dead_after` frames is dead and gets an auxiliary loss.
    `held_out` is the share of frames that is kept for the metrics.
    `seed` makes the first weights; batches come in the same order for every seed.
    `bf16` multiplies in bfloat16 (autocast), which some processors do twice as fast; weights stay in float32.

    For trainings as others do them: without `latent_bias` b_enc stays 0, without `decoder_bias` b_dec; without
    `unit_norm` the decoder's rows may have any length; without `auxiliary` dead features get no loss of their own;
    without `rescale` activations are taken as they are, not at a mean length of sqrt(D). `eps` is Adam's. `schedule` is
    linear, as above, or constant. With `patience` an SAE whose error on the held-out frames has not fallen for that
    number of steps is done: it is the one of the step with the least error.
    """

    activation: str = "batchtopk"
    k: int = 50
    expansion: int = 8
    rms_norm: bool = False
    objective: str | Objective = ""
    sparsity: float = 0.3
    steps: int = 20_000
    batch_size: int = 4096
    lr: float = 5e-4
    dead_after: int = 1_000_000
    held_out: float = 0.05
    seed: int = 0
    bf16: bool = False
    latent_bias: bool = True
    decoder_bias: bool = True
    unit_norm: bool = True
    auxiliary: bool = True
    rescale: bool = True
    eps: float = 1e-8
    schedule: str = "linear"
    patience: int = 0
    d_sae: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as files have them; an objective is its name."""
        return {**asdict(self), "objective": name_of(self.objective)}


SCHEDULES = ("linear", "constant")


class Trainee:
    """One SAE in training: its weights in the normalised space, its optimiser, and how long each feature was silent.

    The same in every process of a `group`.
    """

    def __init__(
        self, site: str, config: TrainConfig, sample_ND: Tensor, device: torch.device, group: Group = ALONE
    ) -> None:
        self.site, self.config, self.group = site, config, group
        width = sample_ND.shape[1]
        self.scale = 1.0
        if config.rescale:
            self.scale = math.sqrt(width) / float(sample_ND.norm(dim=1).mean().clamp(min=1e-12))
        with seeded(config.seed):
            sae = SAE(width, config.d_sae or width * config.expansion, config.activation, config.k, **self.options)
        self.objective = objective_of(config.objective or sae.function.penalty)
        sae.requires_grad_(True)
        with torch.no_grad():
            if config.decoder_bias:
                sae.b_dec.copy_(self.scale * sample_ND.mean(0))
            sae.function.begin(sae.own)
            if config.rms_norm:
                # the features' length is fixed at sqrt(d_sae), and the decoder brings it to that of the activations
                sae.W_dec.mul_(math.sqrt(width / sae.d_sae))
        self.sae = sae.to(device)
        self.optimizer = torch.optim.Adam(
            [p for p in self.sae.parameters() if p.requires_grad], lr=config.lr, eps=config.eps, fused=True
        )
        self.silent_F = torch.zeros(sae.d_sae, dtype=torch.long, device=device)
        self.longest = 0
        """No feature has been silent for longer: what is known without waiting for the device."""
        self.terms: dict[str, Tensor] = {}
        self.watch = Watch(config.patience)

    @property
    def options(self) -> dict[str, Any]:
        """Of the SAE, beside its activation."""
        return {name: getattr(self.config, name) for name in ("rms_norm", "latent_bias", "decoder_bias")}

    def step(self, x_ND: Tensor, step: int, report: bool = True) -> dict[str, Tensor]:
        """One batch [N, D] of activations as they are; with several processes, this one's share of it.

        With `report` the loss of the whole batch, its explained variance, L0 and share of dead features; of an SAE that
        is done, those of its last report.
        """
        if self.watch.done:
            return self.terms
        sae, config, group = self.sae, self.config, self.group
        rows = len(x_ND) * group.size
        x_ND = x_ND * self.scale
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = config.lr * rate_at(step, config.steps, config.schedule)
        with torch.autocast(x_ND.device.type, torch.bfloat16, enabled=config.bf16):
            run = run_pass(sae, x_ND, group)
            loss = checked(self.objective(run, config.sparsity), config)
        if config.auxiliary and len(dead := self.dead()):
            loss = loss + auxiliary(run, dead)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # the losses are means over equal shares: the mean of their gradients is that of the whole batch
        group.average_([p.grad for p in sae.parameters() if p.grad is not None])
        unit_rows = config.unit_norm and not config.rms_norm
        if unit_rows:
            remove_parallel_gradient(sae)
        nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        self.optimizer.step()
        count_F = group.sum(run.count_F)
        with torch.no_grad():
            if unit_rows:
                sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True).clamp(min=1e-12))
            sae.function.after_step(sae.own, lambda: group.least(run.least), step)
            self.silent_F = torch.where(count_F > 0, 0, self.silent_F + rows)
            self.longest += rows
        if not report:
            return {}
        total = (x_ND - group.mean(x_ND.mean(0))).square().sum(-1).mean()
        loss, error, total = group.mean(torch.stack([loss, run.error, total]).detach())
        dead_F = (self.silent_F > config.dead_after).float()
        self.terms = {
            "loss": loss,
            "explained_variance": 1 - error / total,
            "l0": count_F.sum() / rows,
            "dead_share": dead_F.mean(),
        }
        return self.terms

    @torch.no_grad()
    def look(self, held_out_MD: Tensor, steps: int) -> None:
        """Note the error on held-out frames [M, D] after so many steps, and the weights if it is the least."""
        if not self.watch.done:
            x_MD = held_out_MD * self.scale
            error = self.group.mean((x_MD - self.sae(x_MD)).square().sum(-1).mean())
            self.watch.note(float(error), steps, self.sae)

    def dead(self) -> Tensor:
        """The features [j] that were silent for longer than `dead_after`.

        How many these are decides the size of what follows, so a GPU has to be waited for; but not in steps in which
        none can be dead.
        """
        if self.longest <= self.config.dead_after:
            return self.silent_F.new_empty(0)
        dead = (self.silent_F > self.config.dead_after).nonzero()[:, 0]
        if not len(dead):
            self.longest = int(self.silent_F.amax())
        return dead

    def finished(self) -> SAE:
        """A copy that takes activations as they are."""
        config, like = self.config, self.sae
        sae = SAE.unset(like.d_in, like.d_sae, config.activation, config.k, **self.options)
        weights = self.watch.best or self.sae.state_dict()
        sae.load_state_dict({name: value.detach().cpu() for name, value in weights.items()})
        return fold_scale(sae, self.scale).eval().requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        optimizer = self.optimizer.state_dict()
        state = {"sae": self.sae.state_dict(), "optimizer": optimizer, "silent": self.silent_F, "scale": self.scale}
        if self.watch.patience:
            state |= {"watch": {**vars(self.watch)}, "terms": self.terms}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sae.load_state_dict(state["sae"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.silent_F = state["silent"].to(self.silent_F.device)
        self.longest = int(self.silent_F.amax())
        self.scale = state["scale"]
        if self.watch.patience:
            self.watch, self.terms = Watch(**state["watch"]), state["terms"]


@dataclass
class Watch:
    """The least error on held-out frames, after how many steps that was, and the weights of then.

    `done` once it has not fallen for `patience` steps; with 0 nothing is watched.
    """

    patience: int
    least: float = math.inf
    at: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    done: bool = False

    def note(self, error: float, steps: int, sae: SAE) -> None:
        if error < self.least:
            self.least, self.at = error, steps
            self.best = {name: value.clone() for name, value in sae.state_dict().items()}
        self.done = steps - self.at >= self.patience


def checked(loss: Any, config: TrainConfig) -> Tensor:
    """The loss that an objective gave; raises TrainingError for what is none."""
    if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
        is_number = isinstance(loss, Tensor) and not loss.ndim
        problem = "has no gradient" if is_number else "is not one number, a tensor of no axes"
        raise TrainingError(f"objective {name_of(config.objective)}: its loss {problem}")
    return loss


def rate_at(step: int, steps: int, schedule: str = "linear") -> float:
    """Learning rate as a share of its peak: up over the first 5 % (1000 steps at most), down over the last 20 %; or
    constant."""
    if schedule == "constant":
        return 1.0
    warm = max(1, min(1000, steps // 20))
    return min(1.0, (step + 1) / warm, (steps - step) / max(1.0, 0.2 * steps))


def remove_parallel_gradient(sae: SAE) -> None:
    """Keep only what turns the decoder's rows: their length is fixed, and Adam must not store what cannot be used."""
    grad = sae.W_dec.grad
    assert grad is not None
    along_F1 = (grad * sae.W_dec.detach()).sum(1, keepdim=True)
    grad.addcmul_(along_F1, sae.W_dec.detach(), value=-1)


@torch.no_grad()
def fold_scale(sae: SAE, scale: float) -> SAE:
    """Change an SAE that was trained on scale * x so that it takes x, with the same features. In place."""
    sae.W_enc.mul_(scale)
    sae.W_dec.div_(scale)
    sae.b_dec.div_(scale)
    return sae

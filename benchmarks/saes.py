"""Lines of SAEs alone: encode and decode, an edit, a training step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.models import EXPANSION, K, chosen, random_sae, sharing, stock_kernels, threshold
from benchmarks.settings import Aim, Settings, Told, row
from benchmarks.timing import Timing, Variant, peak_bytes
from evaluation.report import Row
from steer import SAE, Ablate
from steer.delta import SiteEdit, site_edit
from steer.trainee import TrainConfig, Trainee, rate_at, remove_parallel_gradient
from steer.values import Frames

TOKENS = 1500
SIZES = ((384, 3072, K), (768, 6144, K), (768, 24_576, 50))
TEXTBOOK = "textbook top-k"
OURS, STOCK = "ours", "ours, torch's own product"
AIMS = {OURS: (80_000, 4.0), STOCK: (50_000, 2.4)}
"""Of training: tokens a second, and times as many as eai-sparsify."""


@torch.inference_mode()
def sae_line(settings: Settings) -> Told:
    """Encode and decode of 1500 tokens, tokens/s; how many times faster than each peer is the base ratio."""
    rows: list[Row] = []
    tokens = settings.size(TOKENS, 32)
    for d_in, d_sae, k in settings.size(SIZES, ((16, 128, 4),)):
        line = f"sae {d_in} x {d_sae}"
        sae, x_ND = random_sae(d_in, d_sae, "topk", k), torch.randn(tokens, d_in)
        variants: dict[str, Callable[[], object]] = {TEXTBOOK: partial(textbook, sae, x_ND)}
        for activation in ("topk", "relu", "jumprelu"):
            variants[f"ours, {activation}"] = partial(sharing(sae, activation, x_ND), x_ND)
        for peer in peers.autoencoders(sae, threshold(sae, x_ND)):
            variants[peer.name] = partial(peer.run, x_ND)
        times = settings.compare(variants, TEXTBOOK)
        for name, timing in times.items():
            rows.append(row(line, name, timing, number=tokens / timing.seconds.value, unit="tokens/s"))
        aims = {"eai-sparsify SparseCoder": 2.2, "sae-lens TopKSAE": 4.0} if (d_in, d_sae) == (768, 6144) else {}
        rows += times_faster(line, "ours, topk", times, aims)
    return Told(rows, peers.remark(*peers.AUTOENCODERS))


def times_faster(line: str, ours: str, times: dict[str, Timing], aims: dict[str, float]) -> list[Row]:
    """How many times faster ours is than each of the peers, in the same rounds."""
    rows = []
    for name in times:
        if name.startswith(peers.AUTOENCODERS):
            faster = Timing(times[name].own, times[ours].own).ratio.value
            aim = Aim(">=", aims[name]) if name in aims else None
            rows.append(row(line, f"{ours} against {name}", number=faster, unit="x as fast", aim=aim))
    return rows


def textbook(sae: SAE, x_ND: Tensor) -> Tensor:
    """Top-k as most people write it."""
    pre_NF = (x_ND - sae.b_dec) @ sae.W_enc + sae.b_enc
    assert sae.k is not None
    values, places = pre_NF.topk(sae.k, sorted=False)
    return torch.zeros_like(pre_NF).scatter(-1, places, values.relu()) @ sae.W_dec + sae.b_dec


@torch.inference_mode()
def edit_line(settings: Settings) -> Told:
    """An edit of j features of 1500 tokens for several d_sae: time, memory, and its error beside fp64."""
    d_in, tokens = settings.size(768, 16), settings.size(TOKENS, 32)
    sizes, counts = settings.size(((1536, 6144, 24_576), (1, 16, 32, 128)), ((64, 128), (1, 4)))
    few = settings.size(32, 4)
    x_BTD = torch.randn(1, tokens, d_in)
    frames = Frames.of(x_BTD, 50.0, 0.0)
    edits: dict[str, tuple[SAE, SiteEdit]] = {}
    variants: dict[str, Callable[[], object]] = {}
    for d_sae in sizes:
        sae = random_sae(d_in, d_sae, "relu", 1)
        for count in counts:
            edit = site_edit(sae, [Ablate(chosen(d_sae, count))])
            name = f"relu, {count} of {d_sae} features"
            edits[name], variants[name] = (sae, edit), partial(edit, x_BTD, frames)
        if d_sae == sizes[1]:
            for peer in peers.autoencoders(sharing(random_sae(d_in, d_sae, "topk", K), "topk", x_BTD[0]), 1.0):
                ids = torch.tensor(chosen(d_sae, few))
                variants[f"{peer.name} + error, {few} of {d_sae}"] = partial(peer.ablate, x_BTD[0], ids)
    base = f"relu, {few} of {sizes[0]} features"
    times = settings.compare(variants, base)
    rows = []
    for name, timing in times.items():
        per_tokens = 1e3 * timing.seconds.value * TOKENS / tokens
        aim = Aim("<=", 1.0) if name in edits and len(edits[name][1].touched) <= 32 else None
        rows.append(row("edit", name, timing, number=per_tokens, unit=f"ms per {TOKENS} tokens", aim=aim))
    peaks = {d_sae: peak_bytes(variants[f"relu, {few} of {d_sae} features"]) for d_sae in sizes}
    for d_sae, peak in peaks.items():
        aim = Aim("<=", peaks[sizes[0]] / 1e6)
        rows.append(row("edit", f"memory, {few} of {d_sae} features", number=peak / 1e6, unit="MB", aim=aim))
    for d_sae in sizes:
        sae, edit = edits[f"relu, {few} of {d_sae} features"]
        error = error_beside_fp64(sae, edit, x_BTD[:, :128])
        name = f"error, {few} of {d_sae} features"
        rows.append(row("edit", name, number=error, unit="largest, beside fp64", aim=Aim("<=", 1e-5)))
    return Told(rows, f"{tokens} tokens of width {d_in}, error kept; {peers.remark(*peers.AUTOENCODERS)}")


def error_beside_fp64(sae: SAE, edit: SiteEdit, x_BTD: Tensor) -> float:
    """The largest difference to encode, decode, decode in fp64."""
    exact = SAE(sae.d_in, sae.d_sae, sae.activation, sae.k).double().requires_grad_(False)
    exact.load_state_dict(sae.state_dict())
    x = x_BTD.double()
    f = exact.encode(x)
    expected = x + exact.decode(f.index_fill(-1, torch.tensor(edit.touched), 0.0)) - exact.decode(f)
    return float((edit(x_BTD, Frames.of(x_BTD, 50.0, 0.0)) - expected).abs().max())


class Textbook:
    """Top-k training as most people write it, with the schedule of ours: autograd through a dense decoder."""

    def __init__(self, like: Trainee) -> None:
        self.sae, self.config, self.scale = copy_of(like.sae).requires_grad_(True), like.config, like.scale
        self.optimizer = torch.optim.Adam(self.sae.parameters(), lr=self.config.lr)

    def step(self, x_ND: Tensor, step: int) -> None:
        x_ND = x_ND * self.scale
        self.loss(x_ND).backward()
        remove_parallel_gradient(self.sae)
        nn.utils.clip_grad_norm_(self.sae.parameters(), 1.0)
        scheduled(self.optimizer, self.config, step)
        with torch.no_grad():
            self.sae.W_dec.copy_(nn.functional.normalize(self.sae.W_dec, dim=1))

    def loss(self, x_ND: Tensor) -> Tensor:
        return (textbook(self.sae, x_ND) - x_ND).square().sum(-1).mean()

    def unexplained(self, x_ND: Tensor) -> float:
        return unexplained(partial(textbook, self.sae), x_ND * self.scale)


class Sparsify:
    """A training step of eai-sparsify's own loop (its forward pass, loss, decoder's norm), with our schedule."""

    def __init__(self, like: Trainee) -> None:
        self.coder, self.config, self.scale = peers.sparse_coder(like.sae), like.config, like.scale
        self.coder.train().requires_grad_(True)
        self.optimizer = torch.optim.Adam(self.coder.parameters(), lr=self.config.lr)

    def step(self, x_ND: Tensor, step: int) -> None:
        self.coder.set_decoder_norm_to_unit_norm()
        self.coder(x_ND * self.scale).fvu.backward()
        self.coder.remove_gradient_parallel_to_decoder_directions()
        nn.utils.clip_grad_norm_(self.coder.parameters(), 1.0)
        scheduled(self.optimizer, self.config, step)

    def unexplained(self, x_ND: Tensor) -> float:
        return unexplained(lambda x: self.coder(x).sae_out, x_ND * self.scale)


class Ours(Trainee):
    """As in training between two lines of the log."""

    def step(self, x_ND: Tensor, step: int, report: bool = False) -> dict[str, Tensor]:
        return super().step(x_ND, step, report)

    def unexplained(self, x_ND: Tensor) -> float:
        return unexplained(self.sae, x_ND * self.scale)


def ours(config: TrainConfig, sample_ND: Tensor) -> Ours:
    return Ours("x", config, sample_ND, torch.device("cpu"))


def copy_of(sae: SAE) -> SAE:
    copied = SAE(sae.d_in, sae.d_sae, sae.activation, sae.k)
    copied.load_state_dict(sae.state_dict())
    return copied


def scheduled(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = config.lr * rate_at(step, config.steps)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def unexplained(reconstruct: Callable[[Tensor], Tensor], x_ND: Tensor) -> float:
    """The share of the variance that is lost."""
    error = (reconstruct(x_ND) - x_ND).square().sum()
    return float(error / (x_ND - x_ND.mean(0)).square().sum())


def train_line(settings: Settings) -> Told:
    """Training of top-k SAEs, tokens/s; and what is unexplained after the same batches from the same weights."""
    width, batch, steps = settings.size((384, 4096, 30), (16, 64, 4))
    k = settings.size(K, 4)
    # lr of a short training, so that there is a loss to compare
    config = TrainConfig("topk", k, EXPANSION, steps=steps, batch_size=batch, lr=1e-3)
    data = batches(width, batch, min(steps, 12), k)
    like = Trainee("x", config, data[0], torch.device("cpu"))
    makers: dict[str, Callable[[], Any]] = {
        OURS: partial(ours, config, data[0]),
        STOCK: partial(ours, config, data[0]),
        "ours, bf16": partial(ours, replace(config, bf16=True), data[0]),
        "textbook loop": partial(Textbook, like),
    }
    if peers.load("eai-sparsify"):
        makers["eai-sparsify step"] = partial(Sparsify, like)

    def train(trainer: Any, count: int) -> None:
        for step in range(count):
            # past the warm-up, before the end
            trainer.step(data[step % len(data)], steps // 2)

    around = {STOCK: stock_kernels}
    timed = {n: Variant(partial(train, make(), 2), around.get(n, nullcontext)) for n, make in makers.items()}
    if peers.load("eai-sparsify"):
        timed["eai-sparsify Trainer.fit"] = Variant(peers.sparsify_fit(like.sae, data[:2], config.lr))
    times = settings.compare(timed, "textbook loop", sample_s=0.2)
    line = f"train {width} x {width * EXPANSION}"
    rows = []
    for name, timing in times.items():
        aim = Aim(">=", AIMS[name][0]) if name in AIMS else None
        rows.append(row(line, name, timing, number=2 * batch / timing.seconds.value, unit="tokens/s", aim=aim))
    for theirs in ("eai-sparsify step", "eai-sparsify Trainer.fit"):
        for name, (_, least) in AIMS.items() if theirs in times else ():
            faster = Timing(times[theirs].own, times[name].own).ratio.value
            against = f"{name} against {theirs}"
            rows.append(row(line, against, number=faster, unit="x as fast", aim=Aim(">=", least)))
    lost = {}
    for name, make in makers.items():
        if name == STOCK:
            continue
        trainer = make()
        for step in range(steps):
            trainer.step(data[step % len(data)], step)
        lost[name] = trainer.unexplained(data[0])
    for name, share in lost.items():
        aim = Aim("<=", 1.02 * min(lost.values())) if name.startswith("ours") else None
        unit = f"unexplained after {steps * batch} tokens"
        rows.append(row(line, f"loss, {name}", number=share, unit=unit, aim=aim))
    return Told(rows, f"k {k}, batch {batch}; {peers.remark('eai-sparsify')}")


def batches(width: int, size: int, count: int, k: int) -> list[Tensor]:
    """Sums of a few of many directions and a little noise: something to learn."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(4 * width, width, generator=generator)
    made = []
    for _ in range(count):
        places = torch.randint(4 * width, (size, k // 2), generator=generator)
        amounts = torch.rand(size, k // 2, generator=generator)
        x_ND = nn.functional.embedding_bag(places, directions, per_sample_weights=amounts, mode="sum")
        made.append(x_ND + 0.1 * torch.randn(size, width, generator=generator))
    return made

"""Lines for a GPU: encode and decode, a training step, edits in a whole model, each with our kernels and without.

They run on any device; on a GPU times are of CUDA events. Rates are shown as shares of what a copy and a large matrix
product reach on the same device, measured in the same process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.models import EDITED, EXPANSION, K, Subject, chosen, hubert, per_activation, random_sae
from benchmarks.saes import Ours, Sparsify, batches
from benchmarks.settings import Aim, Settings, Told, row
from benchmarks.timing import Timing, Variant
from benchmarks.whole_models import read
from evaluation.report import Row
from hooks.capture import Recorder
from steer import SAE, Ablate, SteeredModel
from steer.kernels import decode, topk, usable
from steer.trainee import TrainConfig, Trainee

PLAIN, AGAIN = "plain", "plain again (A/A)"
PRODUCT, PRODUCT_AGAIN = "the encoder's product alone", "the product again (A/A)"
OURS, TORCH = "ours", "ours, torch's own kernels"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SIZES = ((384, 3072, K), (768, 6144, K), (768, 24_576, 50), (1280, 10_240, 50))
BATCHES = ((384, K, 4096), (768, K, 4096), (768, 50, 16_384))
SPARSIFY = "eai-sparsify"


def ceilings(settings: Settings) -> tuple[float, dict[str, float]]:
    """Bytes a second of a large copy, read and written, and operations a second of a large matrix product."""
    device, count, size = settings.device, settings.size(2**30, 2**16), settings.size(8192, 64)
    source = torch.randn(count // 2, device=device)
    target = torch.empty_like(source)
    timed: dict[str, Callable[[], object]] = {"copy": partial(target.copy_, source)}
    for name, dtype in DTYPES.items():
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        timed[name] = partial(torch.matmul, a, b)
    times = settings.compare(timed, "copy")
    rates = {name: 2 * size**3 / times[name].seconds.value for name in DTYPES}
    return 2 * source.nbytes / times["copy"].seconds.value, rates


@torch.inference_mode()
def ceiling_line(settings: Settings) -> Told:
    """What the device reaches: a copy and matrix products, of random numbers."""
    bytes_s, rates = ceilings(settings)
    rows = [row("ceilings", "copy", number=bytes_s / 1e9, unit="GB/s")]
    rows += [row("ceilings", f"product, {name}", number=rate / 1e12, unit="TFLOP/s") for name, rate in rates.items()]
    return Told(rows, "bytes read and written; fp32 without TF32")


@torch.inference_mode()
def encode_line(settings: Settings) -> Told:
    """Encode and decode of many tokens, top-k, and its parts."""
    rows: list[Row] = []
    bytes_s, rates = ceilings(settings)
    tokens = settings.size(65_536, 32)
    failed: list[str] = []
    for (d_in, d_sae, k), (kind, dtype) in product(settings.size(SIZES, ((16, 256, 4),)), DTYPES.items()):
        line = f"encode {d_in} x {d_sae}, {kind}"
        cpu_sae = random_sae(d_in, d_sae, "topk", k)
        x_ND = torch.randn(tokens, d_in, device=settings.device, dtype=dtype)
        theirs = list(working_peers(cpu_sae, x_ND, failed))
        sae = cpu_sae.to(settings.device, dtype)
        encoder = sae.encoder()
        variants: dict[str, Variant | Callable[[], object]] = {
            PRODUCT: partial(encoder.preactivation, x_ND),
            PRODUCT_AGAIN: partial(encoder.preactivation, x_ND),
            OURS: partial(sae, x_ND),
            TORCH: Variant(partial(sae, x_ND), usable.without),
        }
        variants |= {peer.name: partial(peer.run, x_ND) for peer in theirs}
        pre_NF = encoder.preactivation(x_ND)
        values_NK, indices_NK = topk(pre_NF, k)
        parts: dict[str, Callable[[], object]] = {
            "part: top-k": partial(topk, pre_NF, k),
            "part: decode": partial(decode, values_NK, indices_NK, sae.W_dec, sae.b_dec),
        }
        moved = {
            "part: top-k": pre_NF.nbytes + values_NK.nbytes + indices_NK.nbytes,
            "part: decode": values_NK.nbytes + indices_NK.nbytes + sae.W_dec.nbytes + x_ND.nbytes,
        }
        times = settings.compare({**variants, **parts}, PRODUCT)
        for name in variants:
            rows.append(row(line, name, times[name], number=tokens / times[name].seconds.value / 1e6, unit="Mtokens/s"))
        rate = 2 * tokens * d_in * d_sae / times[PRODUCT].seconds.value
        rows.append(
            row(line, "share of the matrix rate, product", number=rate / rates[kind], unit="of a large product")
        )
        for name, size in moved.items():
            share = size / times[name].seconds.value / bytes_s
            rows.append(row(line, name, times[name], number=share, unit="of a copy's bandwidth"))
        aims = {"fp32": 1.15, "bf16": 2.5} if (d_in, d_sae) in ((768, 6144), (1280, 10_240)) else {}
        rows += faster(line, OURS, times, aims.get(kind))
        del pre_NF, values_NK, indices_NK
    remark = peers.remark(*peers.AUTOENCODERS)
    return Told(rows, f"{tokens} tokens; {remark}" + (f"; failed: {', '.join(failed)}" if failed else ""))


def working_peers(sae: SAE, x_ND: Tensor, failed: list[str]) -> Iterator[peers.Peer]:
    """The top-k autoencoders of other libraries on the device of `x_ND`; what cannot run there is named in `failed`."""
    for peer in peers.autoencoders(sae, 1.0):
        if "TopK" not in peer.name and "SparseCoder" not in peer.name:
            continue
        try:
            peer.module.to(x_ND.device, x_ND.dtype)
            if hasattr(peer.module, "dtype") and "sae-lens" in peer.name:
                peer.module.dtype = x_ND.dtype
            peer.run(x_ND[:8])
        except Exception as error:  # libraries fail in their own ways
            failed.append(f"{peer.name} in {x_ND.dtype} ({type(error).__name__})")
            continue
        yield peer


def faster(line: str, ours: str, times: dict[str, Timing], aim: float | None) -> list[Row]:
    """How many times faster ours is than eai-sparsify, in the same rounds."""
    return [
        row(
            line,
            f"{ours} against {name}",
            number=Timing(times[name].own, times[ours].own).ratio.value,
            unit="x as fast",
            aim=Aim(">=", aim) if aim else None,
        )
        for name in times
        if name.startswith(SPARSIFY)
    ]


class SparsifyThere(Sparsify):
    """eai-sparsify's step on a device, in bf16 by autocast."""

    def __init__(self, like: Trainee, device: str) -> None:
        super().__init__(like)
        self.coder.to(device)
        self.optimizer = torch.optim.Adam(self.coder.parameters(), lr=self.config.lr, fused=True)

    def step(self, x_ND: Tensor, step: int) -> None:
        with torch.autocast(x_ND.device.type, torch.bfloat16, enabled=self.config.bf16):
            super().step(x_ND, step)


def step_line(settings: Settings) -> Told:
    """A training step with Adam, clipping and unit rows."""
    rows: list[Row] = []
    for (d_in, k, batch), (kind, _) in product(settings.size(BATCHES, ((16, 4, 64),)), DTYPES.items()):
        line = f"step {d_in} x {d_in * EXPANSION}, batch {batch}, {kind}"
        config = TrainConfig("topk", k, EXPANSION, steps=1000, batch_size=batch, bf16=kind == "bf16")
        data = batches(d_in, batch, 2, k)
        there = [x_ND.to(settings.device) for x_ND in data]

        def trained(trainer: Any, there: list[Tensor] = there) -> None:
            for x_ND in there:
                # past the warm-up, before the end
                trainer.step(x_ND, 500)

        def ours(config: TrainConfig, data: list[Tensor] = data) -> Ours:
            return Ours("x", config, data[0], torch.device(settings.device))

        made = {OURS: ours(config), f"{OURS} again (A/A)": ours(config)}
        made["ours, BatchTopK"] = ours(replace(config, activation="batchtopk"))
        variants = {name: Variant(partial(trained, one)) for name, one in made.items()}
        variants[TORCH] = Variant(partial(trained, ours(config)), usable.without)
        if peers.load(SPARSIFY):
            like = Trainee("x", config, data[0], torch.device("cpu"))
            variants[f"{SPARSIFY} step"] = Variant(partial(trained, SparsifyThere(like, settings.device)))
        times = settings.compare(variants, OURS)
        for name, timing in times.items():
            rows.append(row(line, name, timing, number=2 * batch / timing.seconds.value / 1e6, unit="Mtokens/s"))
        rows += faster(line, OURS, times, 2.5 if kind == "bf16" and d_in == 768 else None)
    return Told(rows, peers.remark(SPARSIFY))


def layers_line(settings: Settings) -> Told:
    """Edits at all layers of HuBERT base: 16 clips of 10 s."""
    return model_line(settings, "layers", 16, 10.0, ("relu", "jumprelu", "batchtopk", "topk"), Aim("<=", 1.02))


def clip_line(settings: Settings) -> Told:
    """The same of one clip of 4 s, where launches decide."""
    return model_line(settings, "clip", 1, 4.0, ("relu", "topk"), Aim("<=", 1.05))


@torch.inference_mode()
def model_line(
    settings: Settings, line: str, clips: int, seconds: float, activations: tuple[str, ...], few_aim: Aim
) -> Told:
    rows: list[Row] = []
    k, edited = settings.size(K, 4), settings.size(EDITED, 4)
    for kind, dtype in DTYPES.items():
        subject = there(hubert(settings, seconds), clips, settings.device, dtype)
        with Recorder(subject.model.module, [subject.model.site(name) for name in subject.sites]) as recorder:
            subject.run()
            seen = {name: x_BTD.float().cpu() for name, x_BTD in recorder.take().items()}
        saes = per_activation(seen, [*activations, "topk"], partial(wide, k))
        edits = {site: Ablate(chosen(saes["topk"][site].d_sae, edited, seed=n)) for n, site in enumerate(subject.sites)}
        steered = {name: SteeredModel(subject.model, some, check=False) for name, some in saes.items()}
        for some in saes.values():
            for sae in some.values():
                sae.to(settings.device, dtype)
        variants: dict[str, Variant | Callable[[], object]] = {PLAIN: subject.run, AGAIN: subject.run}
        aims: dict[str, Aim] = {}
        for name in activations:
            variants[f"{name}, {edited} features"] = Variant(subject.run, partial(steered[name].edit, edits))
            aims[f"{name}, {edited} features"] = Aim("<=", 1.30) if name == "topk" else few_aim
        for name in ("relu", "topk"):
            around = partial(torch_edit, steered[name], edits)
            variants[f"{name}, {edited} features, torch's own kernels"] = Variant(subject.run, around)
        variants["all top-k codes read"] = partial(read, subject, saes["topk"])
        for name, timing in settings.compare(variants, PLAIN).items():
            rows.append(row(f"{line}, {kind}", name, timing, aim=aims.get(name)))
    return Told(rows, f"HuBERT base, {clips} clips of {seconds:g} s, all layers, ratio to the plain forward")


def there(subject: Subject, clips: int, device: str, dtype: torch.dtype) -> Subject:
    """The same on a device, with as many clips."""
    subject.model.to(device, dtype)
    wave = torch.randn(clips, subject.inputs[0].shape[1])
    return replace(subject, inputs=(wave.to(device, dtype),))


@contextmanager
def torch_edit(steered: SteeredModel, edits: dict[str, Ablate]) -> Iterator[None]:
    """Edits that are on, by torch's own kernels alone."""
    with usable.without(), steered.edit(edits):
        yield


def wide(k: int, width: int, number: int) -> SAE:
    return random_sae(width, width * EXPANSION, "topk", k, seed=number)

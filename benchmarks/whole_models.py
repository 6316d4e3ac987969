"""Lines of whole models: what hooks and edits at all layers cost beside the plain forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.models import (
    EDITED,
    EXPANSION,
    SEPARATE,
    K,
    Subject,
    chosen,
    hubert,
    per_activation,
    random_sae,
    stock_kernels,
    threshold,
    whisper,
    whisper_tiny,
)
from benchmarks.settings import Aim, Settings, Told, row
from benchmarks.timing import Timing, Variant
from evaluation.report import Row
from hooks import Site, attach, wrap_model
from hooks.capture import Recorder
from steer import Ablate, SteeredModel
from steer.sae import SAE

PLAIN, AGAIN = "plain", "plain again (A/A)"
DELTA_AIM, TOPK_AIM, STOCK_AIM, READ_AIM = Aim("<=", 1.02), Aim("<=", 1.30), Aim("<=", 1.55), Aim("<=", 1.28)


def hubert_line(settings: Settings) -> Told:
    return encoder_line("hubert", hubert(settings), settings)


def whisper_line(settings: Settings) -> Told:
    return encoder_line("whisper", whisper(settings), settings)


@torch.inference_mode()
def encoder_line(line: str, subject: Subject, settings: Settings) -> Told:
    """No edit, 32 features edited at every layer by each activation, all features read, and the same with the peers."""
    plain = subject.run()
    seen = subject.activations()
    width = next(iter(seen.values())).shape[-1]
    d_sae, k, edited = width * EXPANSION, settings.size(K, 4), settings.size(EDITED, 4)
    saes = per_activation(seen, [*SEPARATE, "topk"], lambda d_in, n: random_sae(d_in, d_sae, "topk", k, seed=n))
    edits = {site: Ablate(chosen(d_sae, edited, seed=n)) for n, site in enumerate(subject.sites)}
    steered = {name: SteeredModel(subject.model, some, check=False) for name, some in saes.items()}

    variants: dict[str, Variant | Callable[[], object]] = {
        PLAIN: subject.run,
        AGAIN: subject.run,
        "wrapped, no edit": partial(subject.run, steered["relu"]),
    }
    for name, model in steered.items():
        variants[f"{name}, {edited} features a layer"] = Variant(subject.run, partial(model.edit, edits))
    variants["topk, torch's own product"] = Variant(subject.run, partial(edited_by_stock, steered["topk"], edits))
    variants["relu, edit put on and off each time"] = partial(turned_on, steered["relu"], edits, subject)
    variants["all top-k codes read"] = partial(read, subject, saes["topk"])
    theirs = dict(peer_variants(subject, saes, edits, seen))

    same = "bit-identical" if torch.equal(subject.run(steered["relu"]), plain) else "NOT bit-identical"
    times = settings.compare({**variants, **theirs}, PLAIN)
    rows = [told(line, name, timing, same) for name, timing in times.items()]
    noise = times[AGAIN].ratio
    wrapped = next(one for one in rows if one["variant"].startswith("wrapped"))
    calm = noise.low <= times["wrapped, no edit"].ratio.high and times["wrapped, no edit"].ratio.low <= noise.high
    wrapped |= {"aim": "= plain again", "reached": "yes" if calm and same == "bit-identical" else "no"}
    remark = f"{subject.name}, {len(seen)} layers, d_sae {d_sae}, {next(iter(seen.values())).shape[1]} frames; "
    return Told(rows, remark + peers.remark(*peers.AUTOENCODERS, "nnsight"))


def told(line: str, name: str, timing: Timing, same: str) -> Row:
    aims = {**dict.fromkeys(SEPARATE, DELTA_AIM), "topk": TOPK_AIM, "all top-k codes read": READ_AIM}
    aim = None if "each time" in name else STOCK_AIM if "own product" in name else aims.get(name.partition(",")[0])
    return row(line, f"{name} ({same})" if name.startswith("wrapped") else name, timing, aim=aim)


@contextmanager
def edited_by_stock(steered: SteeredModel, edits: Mapping[str, Ablate]) -> Iterator[None]:
    with stock_kernels(), steered.edit(edits):
        yield


def turned_on(steered: SteeredModel, edits: Mapping[str, Ablate], subject: Subject) -> object:
    with steered.edit(edits):
        return subject.run()


def read(subject: Subject, saes: Mapping[str, SAE]) -> list[tuple[Tensor, Tensor]]:
    """The active features of every activation, their values and ids."""
    with Recorder(subject.model.module, [subject.model.site(name) for name in saes]) as recorder:
        subject.run()
    return [saes[name].encode_sparse(x_BTD) for name, x_BTD in recorder.take().items()]


def peer_variants(
    subject: Subject, saes: Mapping[str, Mapping[str, SAE]], edits: Mapping[str, Ablate], seen: Mapping[str, Tensor]
) -> Iterator[tuple[str, Variant]]:
    """The same edit through the peers: an autoencoder in a hook at each layer, with its error kept."""
    first = saes["topk"]
    made = [peers.autoencoders(sae, threshold(sae, seen[site].flatten(0, 1))) for site, sae in first.items()]
    ids = [torch.tensor(edit.features) for edit in edits.values()]
    layers = list(subject.root.get_submodule(subject.layers))  # type: ignore[call-overload]
    for same_kind in zip(*made, strict=True):
        changes = [partial(ablated, peer, some) for peer, some in zip(same_kind, ids, strict=True)]
        yield f"{same_kind[0].name} + error", Variant(subject.run, partial(peers.hooked, layers, changes))
    if peers.load("nnsight"):
        textbook = [partial(full_edit, sae, some) for sae, some in zip(saes["relu"].values(), ids, strict=True)]
        yield "nnsight + textbook relu + error", Variant(peers.nnsight_pass(subject, textbook))


def ablated(peer: peers.Peer, ids: Tensor, x_ND: Tensor) -> Tensor:
    return peer.ablate(x_ND, ids)


def full_edit(sae: SAE, ids: Tensor, x_ND: Tensor) -> Tensor:
    """An edit as most people write it: encode, decode, decode."""
    f_NF = ((x_ND - sae.b_dec) @ sae.W_enc + sae.b_enc).relu()
    error_ND = x_ND - (f_NF @ sae.W_dec + sae.b_dec)
    return f_NF.index_fill(-1, ids, 0.0) @ sae.W_dec + sae.b_dec + error_ND


@torch.inference_mode()
def decoder_line(settings: Settings) -> Told:
    """One step of Whisper tiny's decoder, its keys and values cached, with one edit per layer."""
    module = whisper_tiny(settings)
    width, window = module.dims.n_text_state, module.dims.n_audio_ctx
    sites = [f"decoder.{number}" for number in range(module.dims.n_text_layer)]
    k = settings.size(K, 4)
    saes = {site: random_sae(width, width * EXPANSION, "relu", k, seed=n) for n, site in enumerate(sites)}
    steered = SteeredModel(wrap_model(module), saes, check=False)
    heard_BTD, token = torch.randn(1, window, width), torch.zeros(1, 1, dtype=torch.long)
    cache, handles = module.install_kv_cache_hooks()
    module.decoder(torch.zeros(1, 8, dtype=torch.long), heard_BTD, kv_cache=cache)
    start = dict(cache)

    def step() -> object:
        # each step is the ninth
        cache.update(start)
        return module.decoder(token, heard_BTD, kv_cache=cache)

    variants: dict[str, Variant | Callable[[], object]] = {PLAIN: step, AGAIN: step}
    for count in (1, settings.size(EDITED, 4)):
        edits = {site: Ablate(chosen(width * EXPANSION, count, seed=n)) for n, site in enumerate(sites)}
        name = f"relu, {count} feature{'s' * (count > 1)} a layer"
        variants[name] = Variant(step, partial(steered.edit, edits))
    variants["hooks that change nothing"] = Variant(step, partial(unchanged, module, [steered.sites[s] for s in sites]))
    times = settings.compare(variants, PLAIN, sample_s=1.0)
    for handle in handles:
        handle.remove()
    rows = []
    for name, timing in times.items():
        aim = Aim("<=", 1.03) if name.startswith("relu") else None
        rows.append(row("decoder", name, timing, aim=aim))
    return Told(rows, f"{len(sites)} layers, one token, 8 before it")


@contextmanager
def unchanged(module: nn.Module, sites: list[Site]) -> Iterator[None]:
    """Hooks of ours that read and write each site and change nothing."""
    handles = [attach(module, site, lambda x_BTD: x_BTD) for site in sites]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def torch_hooks(module: nn.Module) -> Iterator[None]:
    handles = [layer.register_forward_hook(lambda module, args, output: output) for layer in module.children()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def hook_line(settings: Settings) -> Told:
    """Microseconds per hooked layer, on layers that do nothing."""
    count = settings.size(64, 8)
    module = nn.Sequential(*(nn.Identity() for _ in range(count))).eval()
    x_BTD = torch.zeros(1, 1, 1)
    sites = [Site.of(module, str(number)) for number in range(count)]
    times = settings.compare(
        {
            PLAIN: lambda: module(x_BTD),
            "torch hooks": Variant(lambda: module(x_BTD), lambda: torch_hooks(module)),
            "our hooks": Variant(lambda: module(x_BTD), lambda: unchanged(module, sites)),
        },
        PLAIN,
    )
    rows = [row("hook", PLAIN, times[PLAIN])]
    for name in ("torch hooks", "our hooks"):
        each_us = 1e6 * times[name].extra_s.value / count
        aim = Aim("<=", 5.0) if name == "our hooks" else None
        rows.append(row("hook", name, times[name], number=each_us, unit="us a layer", aim=aim))
    return Told(rows, f"{count} layers that do nothing")

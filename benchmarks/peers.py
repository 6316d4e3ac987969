"""Other libraries, with the weights of an SAE of ours, where they are installed beside this package.

The extra `bench` brings them, but for dictionary-learning: it pins an old nnsight (`pip install --no-deps`).
"""

from __future__ import annotations

import copy
import functools
import importlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import version_of
from benchmarks.models import Subject
from steer.sae import SAE

MODULES = {
    "sae-lens": "sae_lens",
    "eai-sparsify": "sparsify",
    "dictionary-learning": "dictionary_learning",
    "nnsight": "nnsight",
}
"""Packages and what they are imported as."""


@dataclass(frozen=True)
class Peer:
    """An autoencoder of another library, its `module`: `run(x_ND)` encodes and decodes.

    `ablate(x_ND, ids)` takes features out and keeps what the autoencoder cannot explain.
    """

    name: str
    module: Any
    run: Callable[[Tensor], Tensor]
    ablate: Callable[[Tensor, Tensor], Tensor]


@functools.cache
def load(package: str) -> Any:
    """Its module, or None where it is not installed or does not load."""
    # with Triton installed, sparsify fails on a CPU
    if not torch.cuda.is_available():
        os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")
    os.environ.setdefault("WANDB_MODE", "disabled")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(MODULES[package])
    except (ImportError, OSError, RuntimeError, AttributeError):  # what packages of unlike versions raise
        return None


def remark(*packages: str) -> str:
    """Which of them were there, and which were not."""
    here = [f"{name} {version_of(name)}" for name in packages if load(name)]
    gone = [name for name in packages if not load(name)]
    told = [f"peers: {', '.join(here)}"] if here else []
    told += [f"not here: {', '.join(gone)}"] if gone else []
    return "; ".join(told)


AUTOENCODERS = ("sae-lens", "dictionary-learning", "eai-sparsify")


def autoencoders(sae: SAE, level: float) -> list[Peer]:
    """The autoencoders of all libraries that are here: relu, top-k, and jumprelu with the threshold `level`."""
    made = {"sae-lens": sae_lens, "dictionary-learning": dictionary_learning, "eai-sparsify": sparsify}
    return [peer for package, make in made.items() if load(package) for peer in make(sae, level)]


def sae_lens(sae: SAE, level: float) -> Iterator[Peer]:
    library = load("sae-lens")
    sizes: dict[str, Any] = {"d_in": sae.d_in, "d_sae": sae.d_sae}
    for kind, more in (("Standard", {}), ("TopK", {"k": sae.k}), ("JumpReLU", {})):
        theirs = getattr(library, f"{kind}SAE")(getattr(library, f"{kind}SAEConfig")(**sizes, **more))
        names = ("W_enc", "W_dec", "b_enc", "b_dec")
        filled(theirs, {name: getattr(sae, name) for name in names}, level)

        def ablate(x_ND: Tensor, ids: Tensor, theirs: Any = theirs) -> Tensor:
            def zero(f_NF: Tensor, hook: Any) -> Tensor:
                return f_NF.index_fill(-1, ids, 0.0)

            # the property warns at every call
            theirs._use_error_term = True
            try:
                return theirs.run_with_hooks(x_ND, fwd_hooks=[("hook_sae_acts_post", zero)])
            finally:
                theirs._use_error_term = False

        yield Peer(f"sae-lens {kind}SAE", theirs, theirs, ablate)


def dictionary_learning(sae: SAE, level: float) -> Iterator[Peer]:
    base = load("dictionary-learning").__name__
    plain = importlib.import_module(f"{base}.dictionary").AutoEncoder(sae.d_in, sae.d_sae)
    topk = importlib.import_module(f"{base}.trainers.top_k").AutoEncoderTopK(sae.d_in, sae.d_sae, sae.k)
    weights = {"encoder.weight": sae.W_enc.T, "encoder.bias": sae.b_enc, "decoder.weight": sae.W_dec.T}
    for theirs, bias in ((plain, "bias"), (topk, "b_dec")):
        filled(theirs, {**weights, bias: sae.b_dec}, level)

        def ablate(x_ND: Tensor, ids: Tensor, theirs: Any = theirs) -> Tensor:
            f_NF = theirs.encode(x_ND)
            error_ND = x_ND - theirs.decode(f_NF)
            return theirs.decode(f_NF.index_fill(-1, ids, 0.0)) + error_ND

        yield Peer(f"dictionary-learning {type(theirs).__name__}", theirs, theirs, ablate)


def sparsify(sae: SAE, level: float) -> Iterator[Peer]:
    theirs = sparse_coder(sae)
    keep_F = torch.ones(sae.d_sae)

    def run(x_ND: Tensor) -> Tensor:
        code = theirs.encode(x_ND)
        return theirs.decode(code.top_acts, code.top_indices)

    def ablate(x_ND: Tensor, ids: Tensor) -> Tensor:
        keep_F.fill_(1).index_fill_(0, ids, 0)
        code = theirs.encode(x_ND)
        error_ND = x_ND - theirs.decode(code.top_acts, code.top_indices)
        return theirs.decode(code.top_acts * keep_F[code.top_indices], code.top_indices) + error_ND

    yield Peer("eai-sparsify SparseCoder", theirs, run, ablate)


def sparse_coder(sae: SAE) -> Any:
    library = load("eai-sparsify")
    theirs = library.SparseCoder(sae.d_in, library.SparseCoderConfig(num_latents=sae.d_sae, k=sae.k))
    weights = {"encoder.weight": sae.W_enc.T, "encoder.bias": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    return filled(theirs, weights, 0.0)


def sparsify_fit(like: SAE, data: Sequence[Tensor], lr: float) -> Callable[[], None]:
    """eai-sparsify's own `Trainer.fit` over batches `[N, D]` in memory; the checkpoint at its end is left out."""
    library, transformers = load("eai-sparsify"), importlib.import_module("transformers")
    rows = torch.cat(list(data))

    class Rows(transformers.PreTrainedModel):  # type: ignore[name-defined]
        """A model whose layer gives the rows that it is asked for."""

        config_class = transformers.PretrainedConfig

        def __init__(self) -> None:
            super().__init__(transformers.PretrainedConfig(num_hidden_layers=1))
            self.rows, self.layer = nn.Embedding.from_pretrained(rows), nn.Identity()

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.layer(self.rows(input_ids))

    class Trainer(library.Trainer):  # type: ignore[name-defined]
        def save(self) -> None:
            pass

    ids = torch.arange(len(rows)).view(len(data), -1).tolist()
    dataset = importlib.import_module("datasets").Dataset.from_dict({"input_ids": ids}).with_format("torch")
    coder = library.SparseCoderConfig(num_latents=like.d_sae, k=like.k)
    config = library.TrainConfig(
        coder, batch_size=1, hookpoints=["layer"], optimizer="adam", lr=lr, log_to_wandb=False, save_every=10**9
    )
    with quiet():
        trainer = Trainer(config, dataset, Rows())

    def fit() -> None:
        trainer.global_step = 0
        with quiet():
            trainer.fit()

    return fit


@contextmanager
def quiet() -> Iterator[None]:
    """Without what a library prints, and with the precision of products as it was, which sparsify's `fit` sets."""
    precision = torch.get_float32_matmul_precision()
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


@torch.no_grad()
def filled(theirs: nn.Module, weights: dict[str, Tensor], level: float) -> nn.Module:
    """With our weights, ready to run."""
    held = dict(theirs.named_parameters())
    for name, value in weights.items():
        held[name].copy_(value)
    if "threshold" in held:
        held["threshold"].fill_(level)
    return theirs.eval().requires_grad_(False)


@contextmanager
def hooked(layers: Sequence[nn.Module], changes: Sequence[Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """What a user of another library's autoencoder does: a torch hook at each layer whose output is [1, T, D]."""

    def hook(change: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
        return lambda module, args, output: change(output[0])[None]

    handles = [layer.register_forward_hook(hook(change)) for layer, change in zip(layers, changes, strict=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def nnsight_pass(subject: Subject, changes: Sequence[Callable[[Tensor], Tensor]]) -> Callable[[], object]:
    """A pass in which nnsight puts a changed activation at each layer."""
    # a copy, since nnsight leaves hooks behind
    wrapped = load("nnsight").NNsight(copy.deepcopy(subject.root))

    def run() -> object:
        with wrapped.trace(*subject.inputs):
            for number, layer in enumerate(functools.reduce(getattr, subject.layers.split("."), wrapped)):
                layer.output = changes[number](layer.output[0])[None]
            output = wrapped.output.save()
        return output

    return run

"""Models and SAEs of published sizes with random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.settings import Settings
from hooks import AudioModel, wrap_model
from hooks.capture import Recorder
from hooks.errors import require
from hooks.random_numbers import seeded
from steer.matmul import using
from steer.sae import SAE

EXPANSION, K, EDITED = 8, 32, 32
"""d_sae / d_in, active features of an activation, and how many features are edited at a site."""
SEPARATE = ("relu", "jumprelu", "batchtopk")


@dataclass(frozen=True)
class Subject:
    """A model, one pass through it (or its part at `path`), and the sites that are edited, the outputs of `layers`."""

    name: str
    model: AudioModel
    path: str
    inputs: tuple[Tensor, ...]
    layers: str
    sites: list[str]

    @property
    def root(self) -> nn.Module:
        return self.model.module.get_submodule(self.path)

    def run(self, through: Any = None) -> Tensor:
        """One pass, by default not through a wrapper but as if there were none."""
        called = getattr(through, self.path) if through and self.path else through or self.root
        output = called(*self.inputs)
        return output if isinstance(output, Tensor) else output.last_hidden_state

    @torch.inference_mode()
    def activations(self) -> dict[str, Tensor]:
        with Recorder(self.model.module, [self.model.site(name) for name in self.sites]) as recorder:
            self.run()
            return recorder.take()


def hubert(settings: Settings, seconds: float = 4.0) -> Subject:
    """HuBERT base and 4 s of noise.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    transformers = require("transformers", "ssl")
    small: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "conv_dim": (16,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
    }
    torch.manual_seed(0)
    model = wrap_model(transformers.HubertModel(transformers.HubertConfig(**settings.size({}, small))))
    model.module.requires_grad_(False)
    wave = torch.randn(1, round(16_000 * settings.size(seconds, seconds / 8)))
    return Subject("HuBERT base", model, "", (wave,), "encoder.layers", encoder_sites(model))


def whisper(settings: Settings) -> Subject:
    """The encoder of Whisper tiny and its window of 30 s.

    Raises:
        MissingExtraError: openai-whisper is not installed.
    """
    module = whisper_tiny(settings)
    model = wrap_model(module)
    mel = torch.randn(1, 80, 2 * module.dims.n_audio_ctx)
    return Subject("Whisper tiny", model, "encoder", (mel,), "blocks", encoder_sites(model))


def whisper_tiny(settings: Settings) -> Any:
    library = require("whisper.model", "whisper")
    window, width, heads, layers = settings.size((1500, 384, 6, 4), (60, 32, 2, 2))
    vocabulary = settings.size(51_865, 100)
    torch.manual_seed(0)
    sizes = (80, window, width, heads, layers, vocabulary, 448, width, heads, layers)
    module = library.Whisper(library.ModelDimensions(*sizes)).eval().requires_grad_(False)
    # torch.empty: whatever was there
    nn.init.normal_(module.decoder.positional_embedding, std=0.02)
    return module


def encoder_sites(model: AudioModel) -> list[str]:
    return [name for name in model.sites if name.startswith("encoder.") and name.removeprefix("encoder.").isdigit()]


def stock_kernels() -> AbstractContextManager[None]:
    """Products by torch's own library, on every processor."""
    return using("addmm")


def random_sae(d_in: int, d_sae: int, activation: str, k: int, seed: int = 0) -> SAE:
    """Random directions, and small random biases."""
    with seeded(seed):
        sae = SAE(d_in, d_sae, activation, k).requires_grad_(False)
        sae.b_enc.normal_(std=0.1)
        sae.b_dec.normal_(std=0.1)
    return sae


def sharing(sae: SAE, activation: str, x_ND: Tensor) -> SAE:
    """The same weights with another activation; of one with thresholds about k features are active on `x_ND`."""
    assert sae.k is not None
    with torch.device("meta"):
        other = SAE(sae.d_in, sae.d_sae, activation, sae.k)
    for name in ("W_enc", "W_dec", "b_enc", "b_dec"):
        setattr(other, name, getattr(sae, name))
    if hasattr(other, "threshold"):
        level = threshold(sae, x_ND)
        other.threshold = nn.Parameter(torch.full_like(sae.b_enc, level), requires_grad=False)
    return other


def threshold(sae: SAE, x_ND: Tensor) -> float:
    """Above it are k features of an activation, on average."""
    assert sae.k is not None
    pre_F = sae.encoder().preactivation(x_ND[:256]).flatten()
    return float(pre_F.kthvalue(max(1, int(len(pre_F) * (1 - sae.k / sae.d_sae)))).values)


def chosen(d_sae: int, count: int, seed: int = 0) -> list[int]:
    """Ids of random features."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(d_sae, generator=generator)[:count].tolist()


def per_activation(
    seen: Mapping[str, Tensor], activations: Sequence[str], make: Callable[[int, int], SAE]
) -> dict[str, dict[str, SAE]]:
    """{activation: {site: SAE}}, those of a site share the weights that `make(width, number)` gives them."""
    saes: dict[str, dict[str, SAE]] = {activation: {} for activation in activations}
    for number, (site, x_BTD) in enumerate(seen.items()):
        first = make(x_BTD.shape[-1], number)
        for activation in activations:
            saes[activation][site] = sharing(first, activation, x_BTD.flatten(0, 1))
    return saes

"""The line of codecs: live sound, edited block by block, against the clock."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.models import EDITED, EXPANSION, K, chosen, random_sae
from benchmarks.settings import Aim, Settings, Told, row
from benchmarks.timing import Variant
from evaluation.report import Row
from hooks.errors import MissingExtraError, require
from steer import SAE, Ablate, SteeredModel, Stream, open_model, wrap_model

BLOCK_S, SECONDS = 0.5, 5.0


@torch.inference_mode()
def codec_line(settings: Settings) -> Told:
    """Seconds of computing a second of sound that comes in blocks, and the latency."""
    rows: list[Row] = []
    remarks = [f"blocks of {BLOCK_S:g} s"]
    for name, open_codec in (("starter codec", starter), ("EnCodec 24 kHz", encodec)):
        try:
            steered = open_codec(settings)
        except MissingExtraError as error:
            remarks.append(f"{name} left out: {error}")
            continue
        stream = Stream(steered, BLOCK_S)
        remarks.append(f"{name}: {stream.latency_s:.2f} s late, {stream.lookahead_s:.2f} s of that heard ahead")
        rows += codec_rows(name, steered, stream.lookahead_s, settings)
    return Told(rows, "; ".join(remarks))


def codec_rows(name: str, steered: SteeredModel, lookahead_s: float, settings: Settings) -> Iterator[Row]:
    rate, channels = steered.model.sample_rate, steered.model.channels
    assert rate is not None
    seconds = settings.size(SECONDS, 1.0)
    sound_CN = 0.1 * torch.randn(channels, round(seconds * rate))
    (sae,) = steered.saes.values()
    assert isinstance(sae, SAE)
    edit = Ablate(chosen(sae.d_sae, settings.size(EDITED, 4)))

    def live(keep_residual: bool) -> None:
        stream = Stream(steered, BLOCK_S, lookahead_s=lookahead_s, keep_residual=keep_residual)
        for block_CN in sound_CN.split(round(BLOCK_S * rate), dim=1):
            stream.push(block_CN)
        stream.finish()

    around = partial(steered.edit, edit)
    variants: dict[str, Variant] = {
        "plain": Variant(partial(live, False)),
        "edited": Variant(partial(live, False), around),
        "edited, residual kept": Variant(partial(live, True), around),
    }
    for variant, timing in settings.compare(variants, "plain").items():
        aim = Aim("<=", 0.3) if (name, variant) == ("starter codec", "edited") else None
        factor = timing.seconds.value / seconds
        yield row("codec", f"{name}, {variant}", timing, number=factor, unit="real-time factor", aim=aim)


def starter(settings: Settings) -> SteeredModel:
    return SteeredModel(open_model("starter:codec"), SAE.load("starter:codec/latent"), check=False)


def encodec(settings: Settings) -> SteeredModel:
    """Its published size, random weights."""
    transformers = require("transformers", "encodec")
    small: dict[str, Any] = {"hidden_size": 16, "num_filters": 4, "codebook_dim": 16, "codebook_size": 64}
    torch.manual_seed(0)
    module = transformers.EncodecModel(transformers.EncodecConfig(**settings.size({}, small))).requires_grad_(False)
    width = module.config.hidden_size
    sae = random_sae(width, width * EXPANSION, "topk", settings.size(K, 4))
    return SteeredModel(wrap_model(module), sae, "latent", check=False)

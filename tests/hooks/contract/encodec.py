"""EnCodec at 24 and 48 kHz; the package has no other sizes than the published ones."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.hooks.contract.case import PUBLISHED, Case, Way

encodec = pytest.importorskip("encodec", reason="extra encodec")
transformers = pytest.importorskip("transformers", reason="extra encodec")

SIZES = {"24": {}, "48": {"target_bandwidths": [3.0, 6.0, 12.0, 24.0], "sampling_rate": 48_000, "audio_channels": 2}}
SIZES["48"] |= {"normalize": True, "chunk_length_s": 1.0, "overlap": 0.01}
SIZES["48"] |= {"norm_type": "time_group_norm", "use_causal_conv": False}
ENCODER, DECODER = ("encoder.*", "latent"), ("decoder_input", "decoder.*")


@torch.no_grad()
def fill_codebooks(module: Any, channels: int) -> Any:
    """Random codebooks of the latent's size: both libraries start them at zero, so that every input gives silence."""
    spread = module.get_submodule("encoder")(torch.randn(1, channels, 9_600)).std()
    for book in module.modules():
        if hasattr(book, "embed_avg"):
            book.embed.normal_(0, float(spread))
            book.inited.fill_(1)
    return module


def package(size: str) -> Any:
    module = getattr(encodec.EncodecModel, f"encodec_model_{size}khz")(pretrained=False)
    return fill_codebooks(module, module.channels)


def of_transformers(size: str) -> Any:
    reduced = {} if PUBLISHED else {"num_filters": 8, "hidden_size": 32, "codebook_dim": 32}
    module = transformers.EncodecModel(transformers.EncodecConfig(**SIZES[size], **reduced))
    return fill_codebooks(module, module.config.audio_channels)


def save_pretrained(module: Any, folder: Path) -> str:
    module.save_pretrained(folder)
    return str(folder)


def save_checkpoint(module: Any, folder: Path) -> str:
    folder.mkdir()
    torch.save(module.state_dict(), folder / "encodec.th")
    return f"encodec:{folder / 'encodec.th'}"


def case_of(size: str, kind: str) -> Case:
    # a chunk of 1 s passes on 1 % of a second twice, and a last chunk is rounded up
    slack = 1 if size == "24" else 3
    if kind == "package":
        build, save = partial(package, size), save_checkpoint
        ways = {
            "forward": Way(lambda model, audio_BCN: model.module(audio_BCN), slack=slack),
            "encode": Way(lambda model, audio_BCN: model.module.encode(audio_BCN), ENCODER, slack),
            "decode": Way(
                lambda model, codes: model.module.decode(codes),
                DECODER,
                slack,
                given=lambda model, audio_BCN: model.module.encode(audio_BCN),
            ),
        }
    else:
        build, save = partial(of_transformers, size), save_pretrained
        ways = {
            "forward": Way(lambda model, audio_BCN: model.module(audio_BCN), slack=slack),
            "forward as a tuple": Way(lambda model, audio_BCN: model.module(audio_BCN, return_dict=False), slack=slack),
            "highest bit rate": Way(lambda model, audio_BCN: model.module(audio_BCN, bandwidth=24.0), slack=slack),
            "encode": Way(lambda model, audio_BCN: model.module.encode(audio_BCN), ENCODER, slack),
            "decode": Way(
                lambda model, coded: model.module.decode(coded.audio_codes, coded.audio_scales),
                DECODER,
                # the codes of the last chunk are filled up to a whole one
                slack if size == "24" else None,
                given=lambda model, audio_BCN: model.module.encode(audio_BCN),
            ),
        }
    # two chunks of the 48 kHz model, but of the package, which is large: `test_encodec` has chunks of that too
    seconds = 1.1 if size == "48" and kind == "transformers" else 0.1
    # the weights with which chunks are faded begin with a 0 that in float32 is a small number
    refuses = {} if size == "24" else dict.fromkeys((torch.float16, torch.bfloat16), "overlap-add divides by zero")
    return Case(f"encodec {kind} {size} kHz", build, ways, save, seconds, refuses)


CASES = [case_of(size, kind) for size in SIZES for kind in ("package", "transformers")]

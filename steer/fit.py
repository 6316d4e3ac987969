"""Whether an SAE fits a model: the width and the name that it was made for, and a proof by a second of noise."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hooks import AudioModel, Site, SiteError, attach
from hooks.capture import Recorder
from hooks.random_numbers import seeded
from steer.delta import check
from steer.edits import Edit
from steer.errors import EditError, SAEError
from steer.sae import EncodesAndDecodes


def width_of(sae: EncodesAndDecodes) -> int | None:
    """The activation width that an SAE takes, where it says."""
    width = getattr(sae, "d_in", None) or getattr(getattr(sae, "cfg", None), "d_in", None)
    return int(width) if width is not None else None


def differ(one: str, other: str) -> bool:
    """Whether two names stand for different models, as far as that can be told: not of folders, nor of bare classes.

    `whisper:tiny` and `hf:openai/whisper-tiny@revision` are one.
    """
    plain = [re.sub("[^a-z0-9]", "", name.partition("@")[0].rpartition("/")[2].lower()) for name in (one, other)]
    return is_public(one) and is_public(other) and plain[0] != plain[1]


def is_public(name: str) -> bool:
    """Whether it is the name of a published model, and not a file or folder."""
    return bool(re.fullmatch(r"hf:[^/]+/[^/]+|\w+:[^/\\]+", name))


def warn_of_foreign(what: str, made_for: str, model: AudioModel) -> None:
    """Warn, with both names, of what was made for another model: its meaning may be lost there."""
    if differ(made_for, model.name):
        warnings.warn(f"{what} was made for {made_for}, not for {model.name}: it may mean nothing there", stacklevel=3)


CODEC, RENAMED = "starter:codec", "starter:wavtokenizer"
FORMER_WIDTH, FORMER_FEATURES = 128, 1024
"""Of the codec that `CODEC` was before it was called `RENAMED`, and of its SAE."""


def misfit(model: AudioModel, site: str, sae: EncodesAndDecodes, width: int) -> SAEError:
    """That an SAE is of another width than its site; one of the former `starter:codec` is told the codec's new name."""
    former = getattr(getattr(sae, "info", None), "model", "") == CODEC and width_of(sae) == FORMER_WIDTH
    hint = f"; it was made for the codec that is called {RENAMED} now" if former else ""
    return SAEError(
        f"the SAE is for activations {width_of(sae)} wide, but site {site!r} of {model.name} is {width} wide{hint}"
    )


def renamed(model: AudioModel, sae: EncodesAndDecodes | None, edits: Sequence[Edit]) -> str:
    """What to add to an error about edits that may have been made for the former `starter:codec`."""
    if model.name != CODEC or fit(edits, getattr(sae, "d_sae", 0)) or not fit(edits, FORMER_FEATURES):
        return ""
    return f"; if this was made for the codec that is called {RENAMED} now, name that as the model"


def fit(edits: Sequence[Edit], d_sae: int) -> bool:
    """Whether an SAE of so many features is one for the edits."""
    try:
        check(edits, d_sae)
    except EditError:
        return False
    return True


@torch.no_grad()
def prove(model: AudioModel, sites: Mapping[str, Site], saes: Mapping[str, EncodesAndDecodes]) -> None:
    """Raises SiteError or SAEError unless every site is passed, fits its SAE and changes the output."""
    assert model.sample_rate is not None
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(1, model.channels, model.sample_rate, generator=generator)
    audio_BCN = noise.to(model.device, model.dtype)
    with Recorder(model.module, list(sites.values())) as recorder:
        plain = seeded_outputs(model, audio_BCN)
        seen = recorder.take()
    for name, site in sites.items():
        x_BTD, width = seen[name], width_of(saes[name])
        site.measured(x_BTD)
        if width is not None and width != x_BTD.shape[2]:
            raise misfit(model, name, saes[name], x_BTD.shape[2])
        # not the same for all channels: layer norms would not see that
        spread = float(x_BTD.float().std().clamp(min=0.1))
        push_D = (spread * torch.randn(x_BTD.shape[2], generator=generator)).to(x_BTD)
        with attach(model.module, site, partial(torch.add, push_D)):
            pushed = seeded_outputs(model, audio_BCN)
        if all(torch.equal(a, b) for a, b in zip(plain, pushed, strict=True)):
            raise SiteError(f"site {name!r} of {model.name}: a change there does not change the output")


def seeded_outputs(model: AudioModel, audio_BCN: Tensor) -> list[Tensor]:
    """One pass with a fixed seed, since some models are random even in evaluation mode; the caller's seed stays."""
    with seeded(0, model.device):
        return tensors_in(model.run(audio_BCN))


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in a model's output, whatever holds them."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []

"""`attribute`: which features carry a score of the running model, by gradient x activation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor

from hooks import attach
from hooks.errors import SiteError
from hooks.gradients import gradients
from steer.decoding import decoded
from steer.errors import EditError
from steer.sae import EncodesAndDecodes
from steer.steered import SteeredModel


def attribute(
    steered: SteeredModel, score: Callable[[], Tensor], sites: str | Sequence[str] | None = None
) -> dict[str, Tensor]:
    """How much each feature adds to a score, frame by frame: {site: gradient x activation [B, T, d_sae]}.

    `score` runs the model and gives one number: `lambda: steered(x)[0, -1, token]`, or `steered.embed(sound)[0, 3]`.
    It is called once, and `run`, `embed` and `features` keep gradients in it. To first order an attribution is by how
    much the score would fall if that feature were ablated there; sums over frames and features are those of ablations
    together. Where all that follows the site is linear this is exact. `sites` are by default all with an SAE; a site
    that is passed several times has the passes one behind the other. The model's output is the same, bit for bit, and
    edits that are active are in it; no gradients are left on the model's weights.

    Raises:
        EditError: the score is not one number, or has no gradient (`transcribe` keeps none).
        SiteError: a site without an SAE, or one that `score` did not pass.
    """
    names = list(steered.saes) if sites is None else [sites] if isinstance(sites, str) else list(sites)
    for name in names:
        if name not in steered.saes:
            raise SiteError(f"there is no SAE at {name!r}; there are SAEs at {', '.join(steered.saes) or 'no site'}")
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    with ExitStack() as stack, gradients():
        for name in names:
            change = partial(through, steered.saes[name], seen[name])
            stack.enter_context(attach(steered.model.module, steered.sites[name], change))
        value = score()
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise EditError(f"a score to attribute is one number, a tensor with a gradient, not {shape}")
    for name, passes in seen.items():
        if not passes:
            raise SiteError(f"site {name!r} was not passed: the score does not run that part of the model")
    leaves = [f_BTF for passes in seen.values() for f_BTF in passes]
    if not value.requires_grad:
        raise EditError(
            "the score has no gradient: transcribe and resynthesize keep none, so let it call the model, run or embed, "
            "and not detach what comes out"
        )
    slopes = iter(torch.autograd.grad(value.sum(), leaves, allow_unused=True, materialize_grads=True))
    return {
        name: torch.cat([f_BTF.detach() * next(slopes) for f_BTF in passes], dim=1) for name, passes in seen.items()
    }


def through(sae: EncodesAndDecodes, seen: list[Tensor], x_BTD: Tensor) -> Tensor:
    """The activation as it is, with a gradient to its features, which are added to `seen`."""
    with torch.no_grad():
        f_BTF = sae.encode(x_BTD)
    f_BTF = f_BTF.detach().requires_grad_()
    seen.append(f_BTF)
    y_BTD = decoded(sae, f_BTF, x_BTD.detach())
    # nothing is added, and its gradient is the decoder's
    return x_BTD + (y_BTD - y_BTD.detach()).to(x_BTD.dtype)

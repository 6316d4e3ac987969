"""An SAE out of tensors in our names and shapes, whatever file they come from, and what formats have in common."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from hooks.errors import shortened
from steer.activations import ACTIVATIONS
from steer.encoder import Encoder
from steer.errors import SAEError
from steer.sae import SAE, SAEInfo


def assemble(
    name: str,
    activation: str,
    tensors: Mapping[str, Any],
    k: Any = None,
    *,
    center: bool = True,
    normalize: str | None = None,
    rms_norm: bool = False,
    latent_bias: bool = True,
    decoder_bias: bool = True,
    info: SAEInfo | None = None,
) -> SAE:
    """An SAE in fp32 with copies of `tensors`: W_enc [D, F], b_enc [F], W_dec [F, D], b_dec [D] and what else it needs.

    Raises:
        SAEError: tensors that are missing, do not fit each other or are not finite, a k that makes no sense, or a bias
            that the SAE should be without.
    """
    needed = ("W_enc", "b_enc", "W_dec", "b_dec", *ACTIVATIONS[activation].parameters)
    missing = [key for key in needed if not isinstance(tensors.get(key), Tensor)]
    if missing:
        raise SAEError(f"{name}: tensors are missing: {', '.join(missing)}")
    if tensors["W_enc"].ndim != 2:
        raise SAEError(f"{name}: W_enc is {list(tensors['W_enc'].shape)}, not [d_in, d_sae]")
    d_in, d_sae = tensors["W_enc"].shape
    if not (d_in and d_sae):
        raise SAEError(f"{name}: W_enc is {d_in} x {d_sae}: there is nothing in it")
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    for key in needed:
        value, shape = tensors[key], shapes.get(key, (d_sae,))
        if tuple(value.shape) != shape:
            raise SAEError(f"{name}: {key} is {list(value.shape)}, and {list(shape)} is needed")
        if not value.is_floating_point() or not torch.isfinite(value).all():
            raise SAEError(f"{name}: {key} is not finite numbers")
    for key, has_bias in (("b_enc", latent_bias), ("b_dec", decoder_bias)):
        if not has_bias and tensors[key].any():
            raise SAEError(f"{name}: {key} should be 0, as the SAE is without that bias, and it is not")
    k = whole(k, "k", name) if k is not None else None
    try:
        sae = SAE.unset(
            d_in,
            d_sae,
            activation,
            k,
            center=center,
            normalize=normalize,
            rms_norm=rms_norm,
            latent_bias=latent_bias,
            decoder_bias=decoder_bias,
            info=info,
        )
    except SAEError as error:
        raise SAEError(f"{name}: {error}") from error
    sae.load_state_dict({key: tensors[key].detach().float() for key in needed})
    return sae.eval().requires_grad_(False)


def taken(state: Mapping[str, Any], names: Mapping[str, str], name: str) -> dict[str, Tensor]:
    """Tensors in our names, {ours: theirs}; a linear layer's weight, [out, in], is turned round.

    Raises:
        SAEError: one is missing, or a weight is not a matrix.
    """
    missing = [theirs for theirs in names.values() if not isinstance(state.get(theirs), Tensor)]
    if missing:
        raise SAEError(f"{name}: tensors are missing: {', '.join(missing)}")
    found = {}
    for ours, theirs in names.items():
        value = state[theirs].float()
        if theirs.endswith(".weight"):
            if value.ndim != 2:
                raise SAEError(f"{name}: {theirs} is {list(value.shape)}, not a matrix")
            value = value.T
        found[ours] = value
    return found


def info_of(said: Mapping[str, Any], name: str) -> SAEInfo:
    """What a file says of where its SAE belongs, less what it says besides.

    Raises:
        SAEError: something of it is of another kind than it has to be: text, a number above 0, an object.
    """
    found = {field.name: said[field.name] for field in fields(SAEInfo) if said.get(field.name) is not None}
    for key, value in found.items():
        if key in ("sample_rate", "frame_rate"):
            fits = isinstance(value, int | float) and 0 < value < float("inf")
        elif key == "metrics":
            fits = isinstance(value, Mapping) and all(isinstance(number, int | float) for number in value.values())
        else:
            fits = isinstance(value, dict if key == "extra" else str)
        if not fits:
            raise SAEError(f"{name}: {key} in what it says of itself makes no sense ({shortened(repr(value), 80)})")
    return SAEInfo(**found)


def whole(value: Any, what: str, name: str) -> int:
    """A count, which some formats write as a float or a tensor; raises SAEError for what is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise SAEError(f"{name}: {what} is {shortened(repr(value), 80)}, not a number") from error
    if not number.is_integer() or number < 1:
        raise SAEError(f"{name}: {what} is {shortened(repr(value), 80)}, not a whole number above 0")
    return int(number)


def check_sizes(tensors: Mapping[str, Tensor], d_in: Any, d_sae: Any, name: str) -> None:
    """Raises SAEError where a config says another size than W_enc [d_in, d_sae] has; None says nothing."""
    shape = tuple(tensors["W_enc"].shape)
    if len(shape) != 2 or any(said not in (None, size) for said, size in zip((d_in, d_sae), shape, strict=True)):
        raise SAEError(f"{name}: cfg says {d_in} x {d_sae}, W_enc is {' x '.join(map(str, shape))}")


def tensors_as(names: Mapping[str, str], sae: SAE, center: bool) -> dict[str, Tensor]:
    """Tensors under the names of a format, {ours: theirs}, the opposite of `taken`; for one that subtracts b_dec from
    its input (`center`), or one that does not."""
    shift_F = (sae.b_dec @ sae.W_enc) * (int(center) - int(sae.center))
    shifted = sae.function.shifted(Encoder(sae.W_enc, sae.b_enc, sae.own), shift_F)
    tensors = {**sae.state_dict(), "b_enc": shifted.b_enc, **shifted.own}
    return {
        theirs: (tensors[ours].T if theirs.endswith(".weight") else tensors[ours]).detach().cpu().contiguous()
        for ours, theirs in names.items()
    }


def without_threshold(name: str, k: Any) -> str:
    """What a BatchTopK SAE without its threshold runs as, and a warning that says so."""
    warnings.warn(
        f"{name}: a BatchTopK SAE without its threshold; it runs as top-k, {k} features for each frame "
        "(steer.thresholds.calibrate_threshold finds one on activations)",
        stacklevel=2,
    )
    return "topk"


def only_plain(sae: SAE, package: str) -> None:
    """Raises SAEError for what no package but SAELens (or none) can hold."""
    if sae.rms_norm:
        raise SAEError(f"{package} has no RMS-normalised features: the SAE cannot be written for it")
    if sae.normalize:
        raise SAEError(f"{package} does not do {sae.normalize} to its inputs: the SAE cannot be written for it")

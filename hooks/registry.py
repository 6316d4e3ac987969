"""Which model is which: `open_model` by name or folder, `wrap_model` for a module that is already loaded."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from hooks.errors import AudioSteerError, ModelError, one_line, shortened
from hooks.extensions import Registry
from hooks.families import (
    ast,
    bigcodec,
    crepe,
    dac,
    diffrhythm,
    encodec,
    mimi,
    oobleck,
    snac,
    source_filter,
    speechtokenizer,
    ssl,
    wavtokenizer,
    whisper,
)
from hooks.family import Family
from hooks.hub import download
from hooks.model import AudioModel
from hooks.site import Site
from hooks.starter import model_folder
from hooks.weights import check_finite, check_folder, refusal

log = logging.getLogger(f"audiosteer.{__name__}")
OURS = (
    encodec.FAMILY,
    wavtokenizer.FAMILY,
    bigcodec.FAMILY,
    source_filter.FAMILY,
    *whisper.FAMILIES,
    ssl.FAMILY,
    mimi.FAMILY,
    speechtokenizer.FAMILY,
    oobleck.FAMILY,
    diffrhythm.FAMILY,
    dac.FAMILY,
    snac.FAMILY,
    ast.FAMILY,
    crepe.FAMILY,
)
FAMILIES: Registry[Family] = Registry("family", ModelError, {one.name: one for one in OURS}, plural="families")


def family_where(fits: Callable[[Family], bool]) -> Family | None:
    """The first family that fits; those of installed packages are looked at where none of those at hand does."""
    at_hand = next((one for one in FAMILIES.values() if fits(one)), None)
    return at_hand or next((one for one in FAMILIES.all().values() if fits(one)), None)


def family_of(kind: str | None) -> Family | None:
    """The family with a type of that name."""
    return family_where(lambda family: kind in family.types)


# what a library draws for weights that are then read from files stays without effect on the caller's numbers
@torch.random.fork_rng(devices=[])
def open_model(
    name: str | Path,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> AudioModel:
    """Open `encodec:24khz`, `hf:facebook/encodec_24khz` (with a `revision`), `starter:codec` or a folder.

    Nothing that a file says is ever run, whatever its name; a TorchScript file, which is a program, is opened only
    where its family says so (`diffrhythm:`), and only computes. It is opened on the CPU and put on `device`, its
    floating-point numbers in `dtype` (by default the one that they are in).

    Raises:
        ModelError: no such model, or its files cannot be loaded, or hold numbers that are not finite; no such
            device, or one without room for it; a dtype of whole numbers; the message says what to do.
        MissingExtraError: the model's library is not installed.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise ModelError(f"{name}: a model computes in a floating-point dtype, not in {dtype}")
    began = time.monotonic()
    try:
        model = find_model(name, revision)
    except AudioSteerError:
        raise
    except UnpicklingError as error:
        raise ModelError(f"{name}: {refusal(error)}") from error
    except Exception as error:  # there is no end to what the libraries raise for damaged files
        raise ModelError(
            f"{name}: could not be opened ({one_line(error)}); check its config.json, or fetch it again"
        ) from error
    state = model.module.state_dict()
    check_finite({key: value for key, value in state.items() if isinstance(value, Tensor)}, str(name))
    try:
        model.module.to(device, dtype)
    except (RuntimeError, AssertionError) as error:  # each kind of device has its own
        raise ModelError(f"{name}: cannot be put on device {str(device)!r} ({one_line(error)})") from error
    log.info("opened %s with %d sites on %s in %.2f s", model.name, len(model.sites), device, time.monotonic() - began)
    return model


def find_model(name: str | Path, revision: str | None) -> AudioModel:
    """The model that a name stands for; damaged files may raise anything."""
    text = str(name)
    if isinstance(name, Path) or os.path.exists(text):
        return open_folder(Path(name), text)
    scheme, _, rest = text.partition(":")
    if scheme == "starter":
        return open_folder(model_folder(rest), text)
    if scheme == "hf" and rest:
        return open_folder(download(rest, revision), text)
    family = family_of(scheme)
    if family is not None and rest:
        return family.open_name(rest, text) if family.open_name else open_folder(Path(rest), text)
    own = [family.types[0] for family in FAMILIES.values() if family.open_name]
    known = ", ".join([*(f"{name}:..." for name in (*own, "starter")), "hf:owner/name", "a folder"])
    raise ModelError(f"there is no model {shortened(text)!r}; a model is one of {known}")


def open_folder(folder: Path, name: str) -> AudioModel:
    """Open a folder by `architecture`, `model_type` or (diffusers) `_class_name` in its `config.json`, or by a file."""
    path = folder / "config.json"
    has_config = path.is_file()
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if has_config else {}
        kind = config.get("architecture") or config.get("model_type") or config.get("_class_name")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{name}: {path} is not a JSON object ({error}); fetch it again") from error
    family = family_of(kind) if kind else family_where(lambda one: one.knows(folder, config))
    if family is None and not has_config:
        hint = ""
        if folder.is_file():
            hint = f"; a file of weights opens behind the name of its family, as in whisper:{name}"
        elif (folder / "model_index.json").is_file():
            hint = f"; the VAE of a pipeline opens as oobleck:{name.removeprefix('hf:')}"
        raise ModelError(f"{name}: {folder} has no config.json, so it is not known what model that is{hint}")
    if family is None or family.open_folder is None:
        known = ", ".join(kind for one in FAMILIES.values() for kind in one.types)
        raise ModelError(f"{name}: models of type {kind!r} are not supported; there are {known}")
    if not family.own_format:
        check_folder(folder)
    with room_for(folder):
        return family.open_folder(folder, name)


SPARE_NUMBERS, SPARE_PARTS = 2**27, 10_000


@contextmanager
def room_for(folder: Path) -> Iterator[None]:
    """Lets no module be built that is far larger than the files of the folder: a config may ask for any size.

    Asked as each parameter is registered, when its memory is not yet touched.

    Raises:
        ModelError: more numbers, or more parameters, than there can be in the files.
    """
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    thread, numbers, parts = threading.get_ident(), 0, 0

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal numbers, parts
        if tensor is None or threading.get_ident() != thread:
            return
        numbers, parts = numbers + tensor.numel(), parts + 1
        # weights in 4 bits are two a byte; a parameter's name in a file is longer than 16 bytes
        if numbers > 2 * held + SPARE_NUMBERS or parts > held // 16 + SPARE_PARTS:
            raise ModelError(
                f"{folder}: its config.json asks for a model far larger than its weights; fetch both again"
            )

    handles = [register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def wrap_model(
    module: nn.Module | AudioModel | Any, *sites: Site, sample_rate: int | None = None, channels: int = 1
) -> AudioModel:
    """Recognise a loaded module of a known family; any other module gets just the `sites` that are given.

    Such a module can be given audio if it is said how its forward takes it: as [B, channels, samples] at `sample_rate`.
    What comes in an nnsight wrapper is recognised as any other; the wrapper is kept as the model's `envoy`.

    Raises:
        ModelError: the module is compiled.
        SiteError: a site's module does not exist.
    """
    envoy = module if is_envoy(module) else None
    if envoy is not None:
        module = unwrapped(envoy)
    if type(module).__name__ == "OptimizedModule":
        raise ModelError(
            "the model is compiled by torch.compile, and hooks on it would never run; pass the module that was compiled"
        )
    if isinstance(module, AudioModel):
        model = module
    else:
        model = AudioModel(module, sample_rate=sample_rate, channels=channels)
        # torch.package puts its own name before that of a module: <torch_package_0>.dac.model.dac
        parents = {f"{cls.__module__.rpartition('>.')[2]}.{cls.__qualname__}" for cls in type(module).__mro__}
        family = family_where(lambda one: bool(parents & set(one.classes)))
        if family is not None and family.wrap is not None:
            model = family.wrap(module)
    if envoy is not None:
        model.envoy = envoy
    for site in sites:
        site.find(model.module)
        model.sites[site.name] = site
    return model


def is_envoy(module: object) -> bool:
    """Whether it is one of nnsight's wrappers (told without importing nnsight)."""
    return any(cls.__module__.split(".")[0] == "nnsight" for cls in type(module).__mro__)


def unwrapped(envoy: Any) -> nn.Module:
    """The module in an nnsight wrapper, with its weights."""
    if not vars(envoy).get("dispatched", True):
        envoy.dispatch()
    return envoy._module

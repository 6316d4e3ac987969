"""`Family`: what a file of `hooks/families/` says of the models that it opens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hooks.model import AudioModel

HUB_LIBRARIES = ("transformers", "diffusers")
"""Libraries whose models are folders with a `config.json`; others are opened by a family's own names."""


@dataclass(frozen=True)
class Family:
    """A kind of models, how they are told and how they are opened. `hooks.registry` lists ours, and packages add
    theirs by entry points (`audiosteer.families`).

    `types` (by default the name) stand before the colon in `encodec:24khz`, and a folder's `config.json` names one of
    them as `architecture`, `model_type` or `_class_name`; where it names none, `knows(folder, config)` tells (config is
    {} if there is no such file). `names` are models that are published, for lists. `classes` are modules that `wrap`
    takes, parents of theirs included, as paths: nothing is imported to compare them. `libraries` are what opening
    needs, and `extra` (by default the name) brings them.

    `open_name(rest, name)` opens what stands behind the colon of `name`, and `open_folder(folder, name)` a folder whose
    config is of one of the types; either is None where there is no such thing. They import the libraries themselves
    (`hooks.errors.require`), so that defining a family costs nothing. They run nothing that a file says, and what is
    wrong with it is a ModelError that begins with `name`. They may leave to the registry: that numbers are finite, that
    there is room for the model, the caller's random numbers, the device, and unexpected errors of libraries.
    Folders of weights in a format of its own (`own_format`) come as they are; others are checked before.
    """

    name: str
    types: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    extra: str = ""
    wrap: Callable[[Any], AudioModel] | None = None
    open_name: Callable[[str, str], AudioModel] | None = None
    open_folder: Callable[[Path, str], AudioModel] | None = None
    knows: Callable[[Path, dict[str, Any]], bool] = lambda folder, config: False
    own_format: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "types", self.types or (self.name,))
        object.__setattr__(self, "extra", self.extra or self.name)

    def needs(self, name: str) -> tuple[str, str] | None:
        """The library by which a name or a folder is opened, and the extra that brings it; None if it needs none."""
        by_own_name = name.partition(":")[0] in self.types
        fitting = [library for library in self.libraries if (library in HUB_LIBRARIES) != by_own_name]
        return ((fitting or self.libraries)[0], self.extra) if self.libraries else None

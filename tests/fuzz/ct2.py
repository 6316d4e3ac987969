"""Malformed folders of CTranslate2, through `open_model` and, a sample of them, through `steer`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hooks import open_model
from tests.ct2_files import ALIASES, QUANTISED_ALIASES, ct2_folder, packed, tiny_module, variable, variables_of
from tests.fuzz.child import Case
from tests.fuzz.commands import steer
from tests.fuzz.mutate import SIZES, mutated
from tests.fuzz.places import bad_paths
from tests.fuzz.texts import bombs, mutants

HOW = ("float32", "float16", "int8")
EVERY = 12
"""One of so many is tried on the command line as well."""


def use(folder: Path) -> None:
    """Open it, and pass something through where it still is a model of the sizes that it had."""
    module = open_model(f"ct2:{folder}").module
    if module.dims.n_mels == 4 and module.dims.n_audio_ctx == 12:
        with torch.no_grad():
            module.encoder(torch.zeros(1, 4, 24))


def cases(folder: Path, count: int) -> Iterator[Case]:
    module = tiny_module()
    there = ct2_folder(folder / "model", module)
    path, config = there / "model.bin", there / "config.json"
    good_config = config.read_bytes()
    goods = {how: (ct2_folder(folder / how, module, how) / "model.bin").read_bytes() for how in HOW}
    for how, data in goods.items():
        path.write_bytes(data)
        yield Case(f"good {how}", lambda: use(there), str(there))
    number = 0

    def tried(name: str) -> Iterator[Case]:
        nonlocal number
        yield Case(name, lambda: use(there), str(there))
        number += 1
        if number % EVERY == 0:
            yield Case(f"{name}, steer", lambda: steer("sites", f"ct2:{there}", named=there))

    for index in range(count):
        rng = np.random.default_rng([29, index])
        how = HOW[index % len(HOW)]
        if index % 3 == 0:
            path.write_bytes(mutated(goods[how], rng, goods["int8"], header=600))
        elif index % 3 == 1:
            path.write_bytes(odd_length(variables_of(module, how), rng))
        else:
            aliases = QUANTISED_ALIASES if how == "int8" else ALIASES
            path.write_bytes(packed(odd_variables(variables_of(module, how), rng), aliases))
        yield from tried(f"model.bin {index}")
    path.write_bytes(goods["float32"])
    for index in range(count // 6):
        config.write_bytes(mutants([{"alignment_heads": [[0, 0], [0, 3]]}], np.random.default_rng([31, index])))
        yield from tried(f"config.json {index}")
    for name, data in bombs().items():
        for file, before in ((config, good_config), (path, goods["float32"])):
            file.write_bytes(data)
            yield from tried(f"{file.name} {name}")
            file.write_bytes(before)
    for name, place in bad_paths(folder / "paths", "").items():
        if "\0" in str(place):
            continue
        for file, before in ((config, good_config), (path, goods["float32"])):
            file.unlink()
            file.symlink_to(place)
            yield from tried(f"{file.name} is {name}")
            file.unlink()
            file.write_bytes(before)


def odd_length(variables: dict[str, Tensor], rng: np.random.Generator) -> bytes:
    """A file in which one of a variable's numbers (rank, sizes, type, bytes) or that of all variables is another."""
    name = list(variables)[int(rng.integers(len(variables)))]
    data, whole = bytearray(variable(name, variables[name])), packed(variables, ALIASES)
    start = whole.index(bytes(data))
    after = start + len(name) + 3
    rank = variables[name].ndim
    places = [(after, 1), *((after + 1 + 4 * i, 4) for i in range(rank)), (after + 1 + 4 * rank, 1)]
    places += [(after + 2 + 4 * rank, 4), (start, 2), (whole.index(b"Spec\0") + 9, 4)]
    at, width = places[int(rng.integers(len(places)))]
    number = SIZES[int(rng.integers(len(SIZES)))] % 256**width
    return whole[:at] + number.to_bytes(width, "little") + whole[at + width :]


def odd_variables(variables: dict[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
    """One of them is gone, called otherwise, or another tensor."""
    name = list(variables)[int(rng.integers(len(variables)))]
    value = variables[name]
    ways: list[Callable[[], Tensor | None]] = [
        lambda: None,
        lambda: value.float() * float("nan"),
        lambda: value.float() / 0,
        lambda: value.flatten(),
        lambda: value[None],
        lambda: value.to(torch.int8),
        lambda: value.to(torch.int32),
        lambda: value.to(torch.bfloat16),
        lambda: torch.zeros(10**6, dtype=torch.int8),
        lambda: torch.zeros(10**6, 1, dtype=torch.int8),
        lambda: torch.zeros(1, 10**6, 1, dtype=torch.int8),
        lambda: torch.zeros(10**6, 1, 1, dtype=torch.int8),
        lambda: torch.zeros(()),
        lambda: value[1:] if value.ndim and len(value) > 1 else value,
        lambda: value.repeat_interleave(2, 0) if value.ndim else value + 1,
    ]
    found = ways[int(rng.integers(len(ways)))]()
    variables = dict(variables)
    del variables[name]
    if found is not None:
        variables[name if rng.random() < 0.9 else f"x/{name}"] = found
    return variables

"""Weights as CTranslate2 stores them, in the file `model.bin` of a folder: `read_model` gives them as tensors by name.

The file, binary version 6, little endian: uint32 version; the name of the kind of model; uint32 revision of that kind;
uint32 number of variables and the variables; uint32 number of aliases and the aliases. A text is its length (uint16)
and so many bytes, the last one 0. A variable is its name, its rank (uint8), its sizes (uint32 each), its type (uint8,
see `TYPES`), the number of its bytes (uint32), and these. An alias is two texts: another name, and that of a variable.

A quantised weight (int8, int16) has a variable `..._scale` beside it, a number for each row or one for all: what is
stored, divided by it, is the weight.

Nothing that a file says is run, and every length is compared with what is left of the file before memory is given.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import torch
from torch import Tensor

from hooks.errors import ModelError, one_line, shortened
from hooks.files import check_regular

FILE = "model.bin"
VERSION = 6
TYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)
"""By their number in the file."""
QUANTISED = (torch.int8, torch.int16)
MAX_RANK = 8
MIN_VARIABLE, MIN_ALIAS = 9, 4
"""The fewest bytes that they take in a file."""
AGAIN = "it is cut short or damaged: fetch it again"


class Damaged(Exception):
    """What is wrong with the content of a file, without the file's name."""


@dataclass(frozen=True)
class Content:
    """What a file holds: the kind of its model, such as "WhisperSpec", and its variables as they are stored.

    An alias is in `variables` as the same tensor under its other name.
    """

    kind: str
    revision: int
    variables: dict[str, Tensor]

    def shape(self, name: str) -> tuple[int, ...]:
        """Sizes of a variable; raises Damaged where it is not there."""
        if name not in self.variables:
            raise Damaged(f"there is no {name}")
        return tuple(self.variables[name].shape)

    def numbers(self) -> int:
        """How many numbers are stored in all, those with several names once."""
        return sum(value.numel() for value in {id(value): value for value in self.variables.values()}.values())

    def floats(self, name: str) -> Tensor:
        """A variable of any type in float32, divided by its scale if it is quantised.

        Raises:
            Damaged: it is not there, or has no scale that fits.
        """
        shape, value = self.shape(name), self.variables[name]
        if value.dtype not in QUANTISED:
            return value.float()
        scale = self.variables.get(f"{name}_scale")
        if scale is None:
            raise Damaged(f"there is no {name}_scale, by which its whole numbers are divided")
        if scale.numel() != 1 and scale.shape != shape[:1]:
            raise Damaged(f"{name}_scale is {list(scale.shape)}, and {name} is {list(shape)}")
        if not bool((scale.float() > 0).all()):
            raise Damaged(f"{name}_scale is not above 0 everywhere")
        return value.float().div_(scale.float().reshape(-1, *[1] * (value.ndim - 1)))


def read_model(path: Path) -> Content:
    """All that a `model.bin` holds, on the CPU, in memory of its own.

    Raises:
        ModelError: it cannot be read, is of another format or version, or is damaged.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            check_version(file.read(24), path)
            file.seek(0)
            return Reader(file).content()
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({one_line(error)})") from error
    except Damaged as error:
        raise ModelError(f"{path}: not a model of CTranslate2 that can be read ({error}); {AGAIN}") from error


def check_version(head: bytes, path: Path) -> None:
    """Raises ModelError where a file does not begin as one of `VERSION` does."""
    version = int.from_bytes(head[:4], "little")
    if head.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path}: only points to the weights; fetch them with `git lfs pull`")
    if 0 < version < VERSION and len(head) > 4:
        raise ModelError(
            f"{path}: is of CTranslate2's version {version}, and {VERSION} is read; convert the model again with a "
            "newer ctranslate2"
        )
    if version != VERSION:
        raise ModelError(f"{path}: does not begin as a model of CTranslate2, version {VERSION}; {AGAIN}")


class Reader:
    """Reads on in a file, and never more than is left of it."""

    def __init__(self, file: BufferedReader) -> None:
        self.file, self.left = file, os.fstat(file.fileno()).st_size

    def content(self) -> Content:
        _, kind, revision = self.number("I"), self.text(), self.number("I")
        variables: dict[str, Tensor] = {}
        for _ in range(self.count(MIN_VARIABLE, "variables")):
            name = self.text()
            self.only_once(name, variables)
            variables[name] = self.tensor(name)
        for _ in range(self.count(MIN_ALIAS, "aliases")):
            alias, name = self.text(), self.text()
            self.only_once(alias, variables)
            if name not in variables:
                raise Damaged(f"{alias} is another name of {name}, which is not there")
            variables[alias] = variables[name]
        if self.left:
            raise Damaged(f"{self.left:,} bytes follow its end")
        return Content(kind, revision, variables)

    def only_once(self, name: str, variables: dict[str, Tensor]) -> None:
        if name in variables:
            raise Damaged(f"{name} is there twice")

    def count(self, least: int, what: str) -> int:
        """How many follow, of at least so many bytes each."""
        found = self.number("I")
        if found * least > self.left:
            raise Damaged(f"it declares {found:,} {what}, for which {self.left:,} bytes are too few")
        return found

    def bytes(self, count: int) -> bytearray:
        if count > self.left:
            raise Damaged(f"{count:,} bytes are declared and {self.left:,} are left")
        data = bytearray(count)
        if self.file.readinto(data) != count:
            raise Damaged("it became shorter while it was read")
        self.left -= count
        return data

    def number(self, code: str) -> int:
        (found,) = struct.unpack(f"<{code}", self.bytes(struct.calcsize(f"<{code}")))
        return int(found)

    def text(self) -> str:
        data = self.bytes(self.number("H"))
        try:
            found = data.decode("ascii")
        except UnicodeDecodeError:
            raise Damaged("a name in it is not text") from None
        if not found.endswith("\0") or not found[:-1].isprintable():
            raise Damaged("a name in it is not text")
        return shortened(found[:-1], 200)

    def tensor(self, name: str) -> Tensor:
        rank = self.number("B")
        if rank > MAX_RANK:
            raise Damaged(f"{name} has {rank} dimensions")
        sizes = [self.number("I") for _ in range(rank)]
        kind, count = self.number("B"), self.number("I")
        if kind >= len(TYPES):
            raise Damaged(f"{name} is of the unknown type {kind}")
        dtype = TYPES[kind]
        if 0 in sizes or math.prod(sizes) * dtype.itemsize != count:
            raise Damaged(f"{name} is {sizes} of {str(dtype).removeprefix('torch.')}, and has {count:,} bytes")
        return torch.frombuffer(self.bytes(count), dtype=dtype).reshape(sizes)

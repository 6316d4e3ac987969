"""Weights as tensors by name, from safetensors or from torch's own files; nothing that a file says is ever run.

`read_state` takes a file, or a folder as transformers, diffusers or a training left it, in one file or in several with
an index. Files of torch are unpickled as tensors and plain values only. What a file declares is compared with what it
holds before memory is given to it, and an index may name only files beside it.
"""

from __future__ import annotations

import codecs
import io
import json
import pickle
import pickletools
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from hooks.errors import ModelError, one_line
from hooks.files import check_regular, read_text

SAFE, PICKLED = (".safetensors",), (".ckpt", ".pt", ".pth", ".bin")
STANDARD = ("model", "diffusion_pytorch_model", "pytorch_model")
"""What libraries call the file that has all weights."""
WRAPPERS = ("state_dict", "model_state_dict")
"""Under what a training keeps the weights in its checkpoints."""
UNREADABLE = (
    *(ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    SafetensorError,
)
"""What comes of tensors and JSON that are damaged, or that are not what they are taken for."""
OLD_PICKLES = 5
"""A file of old torch begins with so many: a mark, a version, a system, what was saved, its storages."""
MAX_INDEX_BYTES = 16 * 2**20
AGAIN = "it is cut short or damaged: fetch it again"


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file or folder on the CPU, finite, as they are stored.

    Of a checkpoint of a training this is its `state_dict`; for other parts see `read_checkpoint`.

    Raises:
        ModelError: no weights or no telling which, a file that is damaged or asks for code to be run, an index that
            leads out of the folder, or values that are not finite.
    """
    path = Path(path)
    state: dict[str, Tensor] = {}
    for file in weight_files(path) if path.is_dir() else [path]:
        content = read_checkpoint(file)
        if isinstance(content, Mapping):
            wrapped = (content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping))
            content = next(wrapped, content)
        state |= checked(content, file)
    return state


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights of a folder: safetensors if there are any, whole before sharded.

    Raises:
        ModelError: there are none, several that do not belong together, or the index is damaged.
    """
    for kinds in (SAFE, PICKLED):
        found = sorted(path for kind in kinds for path in folder.glob(f"*{kind}"))
        indices = sorted(path for kind in kinds for path in folder.glob(f"*{kind}.index.json"))
        whole = [path for path in found if path.stem in STANDARD]
        if whole:
            return whole[:1]
        if indices:
            return shards(indices[0])
        if len(found) > 1:
            names = ", ".join(path.name for path in found[:4])
            raise ModelError(f"{folder}: it is not known which of {names} is meant; leave one of them there")
        if found:
            return found
    raise ModelError(f"{folder}: there are no weights (no {', '.join((*SAFE, *PICKLED))} file)")


def check_folder(folder: Path) -> None:
    """What can be told of a folder before another library reads it: `check_file` of what holds its weights.

    Raises:
        ModelError: one of them is damaged or not there, or an index leads out of the folder.
    """
    for kinds in (SAFE, PICKLED):
        whole = [path for kind in kinds for stem in STANDARD if (path := folder / (stem + kind)).is_file()]
        indices = [path for kind in kinds for path in folder.glob(f"*{kind}.index.json")]
        # where there is a whole file, an index of shards that were not fetched does no harm
        parts = [path for index in indices for path in (named_files(index) if whole else shards(index))]
        for path in (*whole, *parts):
            if path.is_file():
                check_file(path)
        if whole or parts:
            return


def shards(index: Path) -> list[Path]:
    """The files that an index (`model.safetensors.index.json`) names.

    Raises:
        ModelError: as `named_files`, or one of them is not there.
    """
    files = named_files(index)
    for path in files:
        if not path.is_file():
            raise ModelError(f"{index}: names {path.name}, which is not there; fetch the whole folder again")
    return files


def named_files(index: Path) -> list[Path]:
    """The files that an index names, whether they are there or not; each has to be beside it.

    Raises:
        ModelError: it is damaged, or names a file elsewhere.
    """
    try:
        names = sorted(set(json.loads(read_text(index, MAX_INDEX_BYTES))["weight_map"].values()))
    except UNREADABLE as error:
        raise ModelError(f"{index}: no index of weights ({one_line(error)}); {AGAIN}") from error
    for name in names:
        if not isinstance(name, str) or name != re.split(r"[/\\]", name)[-1] or not name.endswith((*SAFE, *PICKLED)):
            raise ModelError(f"{index}: names {name!r}, which is no file of weights beside it; it is not to be trusted")
    if not names:
        raise ModelError(f"{index}: names no files; {AGAIN}")
    return [index.with_name(name) for name in names]


def read_checkpoint(path: Path) -> Any:
    """All that a file holds, as it is nested there; pass parts of it to `checked`.

    Raises:
        ModelError: it cannot be read, is damaged, or holds more than tensors and plain values.
    """
    check_file(path)
    try:
        if path.suffix in SAFE:
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path}: {refusal(error)}") from error
    except Exception as error:  # there is no end to what torch raises for damaged files
        raise ModelError(f"{path}: cannot be read ({one_line(error)}); {AGAIN}") from error


def refusal(error: pickle.UnpicklingError) -> str:
    """Why torch did not unpickle a file as tensors, and what to do."""
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    if wanted is None:
        return f"cannot be unpickled as tensors; {AGAIN}"
    return (
        f"holds more than tensors ({wanted[1]}) and is not loaded, since that could run code; "
        "get the weights as safetensors"
    )


def check_file(path: Path) -> None:
    """What can be told of a file of weights before it is loaded.

    Raises:
        ModelError: it is not there, something else, cut short, or declares more than it holds.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            head = file.read(64)
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({one_line(error)})") from error
    if head.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path}: only points to the weights; fetch them with `git lfs pull`")
    if path.suffix in SAFE:
        if head[8:9] != b"{":
            raise ModelError(f"{path}: is called safetensors and holds something else; {AGAIN}")
        try:
            with safe_open(path, framework="pt"):  # compares what the header says with the length of the file
                pass
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path}: cannot be read ({one_line(error)}); {AGAIN}") from error
    elif head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                declared = sum(entry.file_size for entry in archive.infolist())
                # torch does not compress, so that what comes out is never more than the file
                if declared > size:
                    raise ModelError(
                        f"{path}: {size:,} bytes that would unpack to {declared:,}; it is not to be trusted"
                    )
                for entry in archive.infolist():
                    if entry.filename.endswith(".pkl"):
                        check_pickle(io.BytesIO(archive.read(entry)), path)
        except (*UNREADABLE, zipfile.BadZipFile, zlib.error) as error:
            raise ModelError(f"{path}: cannot be read ({one_line(error)}); {AGAIN}") from error
    elif head.startswith(b"\x80"):
        try:
            with path.open("rb") as file:
                for _ in range(OLD_PICKLES):
                    check_pickle(file, path)
        except UNREADABLE as error:
            raise ModelError(f"{path}: cannot be unpickled as tensors ({one_line(error)}); {AGAIN}") from error
    else:
        raise ModelError(f"{path}: neither a file of torch nor safetensors; {AGAIN}")


def check_pickle(file: IO[bytes], path: Path) -> None:
    """Raises ModelError where unpickling could make much out of a few bytes.

    torch lets a pickle call `bytearray` with any length, and encode bytes to twice as many, again and again.
    """
    encodes, names = False, []
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL" and str(argument).rpartition(" ")[2] == "bytearray":
            raise ModelError(f"{path}: asks for memory (bytearray), which no tensor needs; it is not to be trusted")
        encodes |= opcode.name == "GLOBAL" and argument == "_codecs encode"
        if isinstance(argument, str):
            names.append(argument)
    if encodes and any(map(takes_bytes, names)):
        raise ModelError(f"{path}: encodes bytes to more bytes, which no tensor needs; it is not to be trusted")


def takes_bytes(codec: str) -> bool:
    """Whether it is the name of a codec like hex, whose output can be its input."""
    try:
        codecs.lookup(codec).encode(b"")  # type: ignore[arg-type]
    except (LookupError, TypeError, ValueError, AttributeError):
        return False
    return True


def checked(state: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, without what else is in it.

    Raises:
        ModelError: there are none, one that the file does not hold in full, or values that are not finite.
    """
    found = state.items() if isinstance(state, Mapping) else ()
    tensors = {str(name): value.detach() for name, value in found if isinstance(value, Tensor)}
    if not tensors:
        raise ModelError(f"{path}: holds no tensors by name")
    for name, value in tensors.items():
        # a pickle may declare a view of any size on one number
        if (
            value.layout != torch.strided
            or value.is_quantized
            or value.device.type != "cpu"
            or value.numel() * value.element_size() > value.untyped_storage().nbytes()
        ):
            raise ModelError(f"{path}: {name} is not a plain tensor, or larger than what the file holds of it")
    check_finite(tensors, str(path))
    return tensors


def check_finite(state: Mapping[str, Tensor], where: str) -> None:
    """Raises ModelError for the first tensor that has NaN or infinite values."""
    for name, value in state.items():
        if value.element_size() == 1 and value.is_floating_point():
            value = value.float()  # torch does not know it of all 8-bit floats
        if not torch.isfinite(value).all():
            raise ModelError(f"{where}: {name} has values that are not finite; the weights are damaged")

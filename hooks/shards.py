"""Shards: the files of an activation store, each of which says itself what is in it.

A store is a folder with a head (`store.json`: model, sample rate, dtype, sites) and shards. A shard is a safetensors
file of whole sounds: one tensor [frames, width] for each site, one sound behind the other. Its metadata hold the
store's head, the names and frames of the sounds, and a checksum of each tensor. It is named after what it holds: who
does the same work again writes the same file again, and nobody ever changes a file that another one wrote.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

from hooks.errors import AudioSteerError, one_line, shortened
from hooks.files import check_regular, read_bytes, read_text, whole_file, write_json

HEAD, INDEX = "store.json", "index.json"
DTYPES = {"float16": ("F16", 2), "float32": ("F32", 4)}
"""What safetensors calls them, and bytes a number."""
SHARDS = b', "shards": '
SHARD_NAME = re.compile(r"[0-9a-f]{32}\.safetensors")
CHUNK = 2**20
LARGEST = 2**31
"""No width and no rate is larger."""
MAX_HEAD_BYTES, MAX_HEADER_BYTES, MAX_INDEX_BYTES = 2**24, 2**30, 2**32
"""For more no memory is given; an index takes some 100 bytes a sound."""
MALFORMED = (AttributeError, LookupError, RecursionError, TypeError, ValueError, struct.error)
"""What comes of JSON that is damaged, or that is not what it is taken for."""

Head = dict[str, Any]
"""{"model", "sample_rate", "dtype", "sites": {site: {"frame_rate", "width"}}}."""


class StoreError(AudioSteerError):
    """A store that cannot be read or written, that is damaged, or that holds something else."""


@dataclass(frozen=True)
class Shard:
    """What a shard's header says: the file's size and where its tensors start (bytes), its sounds, their frames."""

    size: int
    start: int
    names: list[str]
    frames: dict[str, list[int]]
    checksums: dict[str, str]


def tensors_of(head: Head, frames: Mapping[str, list[int]]) -> dict[str, dict[str, Any]]:
    """The entries of a shard's tensors in its header; they lie in the order of their names."""
    code, itemsize = DTYPES[head["dtype"]]
    entries, start = {}, 0
    for site in sorted(head["sites"]):
        shape = [sum(frames[site]), head["sites"][site]["width"]]
        end = start + prod(shape) * itemsize
        entries[site] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
        start = end
    return entries


def compact(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def shard_name(head: Head, names: list[str], frames: Mapping[str, list[int]]) -> str:
    about = compact([head, names, frames]).encode()
    return f"{hashlib.blake2b(about, digest_size=16).hexdigest()}.safetensors"


def checksum(file: IO[bytes], count: int) -> str:
    """Of the next `count` bytes, or of those that are there."""
    found = hashlib.blake2b(digest_size=16)
    while count and (chunk := file.read(min(CHUNK, count))):
        found.update(chunk)
        count -= len(chunk)
    return found.hexdigest()


def shard_header(head: Head, names: list[str], frames: dict[str, list[int]], checksums: dict[str, str]) -> bytes:
    """The start of a shard's file; the tensors follow."""
    about = {"head": head, "names": names, "frames": frames, "checksums": checksums}
    metadata = {key: compact(value) for key, value in about.items()}
    text = json.dumps({"__metadata__": metadata, **tensors_of(head, frames)}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def read_shard(path: Path, head: Head) -> Shard:
    """Read a shard's header; the tensors are not looked at.

    Raises:
        StoreError: it is gone, cut off or damaged, or belongs to another store.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size:
                raise ValueError("its header is cut off")
            if length > MAX_HEADER_BYTES:
                raise ValueError(f"a header of {length} bytes")
            entries = json.loads(file.read(length))
        metadata = entries.pop("__metadata__")
        theirs, *about = (json.loads(metadata[key]) for key in ("head", "names", "frames", "checksums"))
        if other := differences(checked_head(theirs), head):
            raise StoreError(f"{path}: a shard of another store ({shortened(other)}); move it out of here")
        shard = checked_shard(Shard(size, 8 + length, *about), head)
        if path.name != shard_name(head, shard.names, shard.frames) or entries != tensors_of(head, shard.frames):
            raise ValueError("its header is not what it was named after")
    except (OSError, *MALFORMED) as error:
        why = f"no {error} in its header" if isinstance(error, KeyError) else one_line(error)
        raise StoreError(
            f"{path}: not a shard, or damaged ({why}); delete it and {INDEX}, and fill the store again"
        ) from error
    return shard


def checked_shard(shard: Shard, head: Head) -> Shard:
    """What a file says of a shard, if it may be one of a store of this head.

    Raises:
        Exception: one of `MALFORMED`.
    """
    names, frames, checksums, sites = shard.names, shard.frames, shard.checksums, head["sites"].keys()
    if not all(type(number) is int for number in (shard.size, shard.start)):
        raise TypeError("sizes that are no numbers")
    if not isinstance(names, list) or set(map(type, names)) - {str}:
        raise TypeError("names that are no list of texts")
    if frames.keys() != sites or checksums.keys() != sites or set(map(type, checksums.values())) - {str}:
        raise ValueError("frames or checksums of other sites")
    for counts in frames.values():
        if len(counts) != len(names) or set(map(type, counts)) - {int} or min(counts, default=0) < 0:
            raise ValueError(f"frames that are not those of {len(names)} sounds")
    expected = shard.start + max((one["data_offsets"][1] for one in tensors_of(head, frames).values()), default=0)
    if shard.start < 8 or shard.size != expected:
        raise ValueError(f"{shard.size} bytes, not {expected}")
    return shard


# --- the head ---


def read_head(folder: Path) -> Head:
    """Raises StoreError if there is no store, or one that cannot be read."""
    try:
        return checked_head(json.loads(read_text(folder / HEAD, MAX_HEAD_BYTES)))
    except FileNotFoundError as error:
        if (folder / INDEX).exists() or any(folder.glob("*.safetensors")):
            raise StoreError(
                f"{folder}: no {HEAD} there; put it back (each shard's header holds a copy), or fill a new folder if "
                "an older version made the store"
            ) from error
        raise StoreError(f"{folder}: no activation store there (no {HEAD}); make one with fill") from error
    except OSError as error:
        raise StoreError(f"{folder / HEAD}: cannot be read ({error.strerror})") from error
    except MALFORMED as error:
        why = f"no {error} in it" if isinstance(error, KeyError) else one_line(error)
        raise StoreError(f"{folder / HEAD}: damaged ({why}); each shard holds a copy of it in its header") from error


def checked_head(value: Any) -> Head:
    """What a file says is a head, if it is one.

    Raises:
        Exception: one of `MALFORMED`.
    """
    rate = value["sample_rate"]
    if not isinstance(value["model"], str):
        raise TypeError(f"model {value['model']!r}")
    if rate is not None and not (type(rate) is int and 0 < rate < LARGEST):
        raise ValueError(f"sample rate {rate!r}")
    if value["dtype"] not in DTYPES:
        raise ValueError(f"dtype {value['dtype']!r}")
    for site, about in value["sites"].items():
        frame_rate, width = about["frame_rate"], about["width"]
        if frame_rate is not None and not (type(frame_rate) in (int, float) and 0 < frame_rate < LARGEST):
            raise ValueError(f"site {site!r} of frame rate {frame_rate!r}")
        if type(width) is not int or not 0 < width < LARGEST:
            raise ValueError(f"site {site!r} of width {width!r}")
    return value


def claim(folder: Path, head: Head) -> None:
    """Make a folder the store of this head, or see that it is one.

    Raises:
        StoreError: it is a store of another head.
    """
    if not (folder / HEAD).exists():
        write_json(folder / HEAD, head)
    # read back: of two different ones that come at once only the last one stays
    if other := differences(read_head(folder), head):
        raise StoreError(f"{folder}: holds {shortened(other)}; choose another folder")


def differences(have: Head, want: Head) -> str:
    """How two heads differ, "model 'a', not 'b'"; a width that is not known yet is no difference."""
    told = [
        f"{key.replace('_', ' ')} {have[key]!r}, not {want[key]!r}"
        for key in ("model", "sample_rate", "dtype")
        if have[key] != want[key]
    ]
    ours, theirs = have["sites"], want["sites"]
    if ours.keys() != theirs.keys():
        return "; ".join([*told, f"sites {', '.join(ours)}, not {', '.join(theirs)}"])
    for site, about in theirs.items():
        for key in ("frame_rate", "width"):
            if ours[site][key] != about[key] and not (key == "width" and about[key] is None):
                told.append(f"site {site!r} of {key.replace('_', ' ')} {ours[site][key]}, not {about[key]}")
    return "; ".join(told)


# --- all shards of a folder ---


def read_shards(folder: Path, head: Head, known: Mapping[str, Shard]) -> dict[str, Shard]:
    """All shards that are there, by name; the headers of those that are not `known` are read.

    Raises:
        StoreError: a known one is gone, or another one is damaged or belongs to another store.
    """
    with os.scandir(folder) as entries:
        sizes = {e.name: e.stat().st_size for e in entries if e.name.endswith(".safetensors") and e.name[0] != "."}
    for name in known.keys() - sizes.keys():
        # a listing of a folder on another machine may be some seconds old
        if not (folder / name).exists():
            raise StoreError(f"{folder / name}: gone; put it back, or delete {INDEX} and fill the store again")
        sizes[name] = known[name].size
    return {
        name: known[name] if name in known and known[name].size == size else read_shard(folder / name, head)
        for name, size in sorted(sizes.items())
    }


def read_index(folder: Path, head: Head) -> dict[str, Shard]:
    """What the index says of the shards: a copy of their headers in one file, so that a store opens quickly.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        text = read_bytes(folder / INDEX, MAX_INDEX_BYTES)
        index = json.loads(text)
        if index["checksum"] != hashlib.blake2b(text.partition(SHARDS)[2], digest_size=16).hexdigest():
            raise ValueError("its checksum is another one")
        shards = index["shards"]
        if other := [name for name in shards if not SHARD_NAME.fullmatch(name)]:
            raise ValueError(f"{other[0]!r} is not the name of a shard")
        return {name: checked_shard(Shard(**shard), head) for name, shard in shards.items()}
    except FileNotFoundError:
        return {}
    except (OSError, *MALFORMED) as error:
        raise StoreError(
            f"{folder / INDEX}: damaged ({one_line(error)}); delete it, the shards say all that it said"
        ) from error


def write_index(folder: Path, shards: Mapping[str, Shard]) -> None:
    """A JSON object, {"checksum", "shards"}; the checksum is that of all that follows `SHARDS`."""
    text = compact({name: asdict(shard) for name, shard in shards.items()}).encode() + b"}\n"
    start = json.dumps({"checksum": hashlib.blake2b(text, digest_size=16).hexdigest()})[:-1].encode()
    with whole_file(folder / INDEX) as path:
        path.write_bytes(start + SHARDS + text)

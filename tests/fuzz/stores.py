"""Malformed activation stores, through `ActivationStore` and what reads its frames."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hooks import Clip, Site
from hooks.model import AudioModel
from hooks.shards import HEAD, INDEX, SHARDS, StoreError, shard_name, tensors_of
from hooks.store import ActivationStore, verify
from hooks.store_writing import fill
from tests.fuzz.child import Case, Wrong
from tests.fuzz.places import bad_paths
from tests.fuzz.saes import damaged, laid
from tests.fuzz.texts import bombs, replaced


def good_store(folder: Path) -> Path:
    """Two sounds at two sites, in several shards."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv1d(1, 4, 40, 40), nn.Conv1d(4, 6, 1))
    sites = [Site("first", "0", "BDT", frame_rate=200.0), Site("second", "1", "BDT", frame_rate=200.0)]
    model = AudioModel(layers, sites, name="tiny", sample_rate=8_000)
    clips = [Clip(torch.randn(1, 4_000), 8_000, name) for name in ("a", "b")]
    fill(folder, model, clips, ["first", "second"], shard_bytes=500)
    return folder


def attack(folder: Path) -> None:
    told = verify(folder)
    try:
        store = ActivationStore(folder)
    except StoreError as error:
        if not told:
            raise Wrong(f"verify does not tell that {error}") from error
        raise
    for site in store.sites:
        frames = store.frames(site)
        for rows in (slice(0, 10), slice(90, 120), slice(len(frames) - 5, len(frames))):
            x_ND = frames[rows]
            if x_ND.ndim != 2 or (len(x_ND) and x_ND.shape[1] != frames.shape[1]):
                raise Wrong(f"frames {list(x_ND.shape)}, {frames.shape} promised")
    for source in store.sources:
        for site in store.sites:
            store.source_frames(source, site)


def with_shards(rng: np.random.Generator, index: bytes) -> bytes:
    """An index that says something odd, and whose checksum is right all the same."""
    text = json.dumps(replaced(json.loads(index)["shards"], rng)).encode() + b"}\n"
    digest = hashlib.blake2b(text, digest_size=16).hexdigest()
    return json.dumps({"checksum": digest})[:-1].encode() + SHARDS + text


def odd_shard(rng: np.random.Generator, data: bytes) -> tuple[str, bytes]:
    """A shard that says something odd of itself, and is named after it."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    about = {key: json.loads(text) for key, text in header["__metadata__"].items()}
    odd = replaced(about, rng)
    about |= odd if isinstance(odd, dict) else {"frames": odd}
    with suppress(ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        header = tensors_of(about["head"], about["frames"])
    header["__metadata__"] = {key: json.dumps(value) for key, value in about.items()}
    text = json.dumps(header).encode()
    name = shard_name(about["head"], about["names"], about["frames"])
    return name, len(text).to_bytes(8, "little") + text + data[end:]


def cases(folder: Path, count: int) -> Iterator[Case]:
    good = good_store(folder / "good")
    files = {
        path.name: path.read_bytes() for path in good.iterdir() if path.is_file() and not path.name.startswith(".")
    }
    there = folder / "store"
    there.mkdir()
    laid(there, files)
    texts = [name for name in files if name.endswith(".json")]
    yield Case("good", lambda: attack(there), str(there))
    shard = next(name for name in files if name.endswith(".safetensors"))
    for name, place in bad_paths(folder / "paths", "").items():
        yield Case(f"path {name}", lambda place=place: attack(place))  # type: ignore[misc]
        if "\0" in str(place):
            continue
        for part in (*texts, shard):
            laid(there, files)
            (there / part).unlink()
            (there / part).symlink_to(place)
            yield Case(f"{part} is {name}", lambda: attack(there), str(there))
    for name, data in bombs().items():
        for part in texts:
            laid(there, {**files, part: data})
            yield Case(f"{part} {name}", lambda: attack(there), str(there))
    parts = [*texts, shard]
    for index in range(count):
        rng = np.random.default_rng([29, index])
        part = parts[index % len(parts)]
        laid(there, {**files, part: damaged(part, files[part], rng, files[shard])})
        yield Case(f"{part} {index}", lambda: attack(there), str(there))
    for index in range(count):
        rng = np.random.default_rng([31, index])
        laid(there, {**files, INDEX: with_shards(rng, files[INDEX])})
        yield Case(f"odd index {index}", lambda: attack(there), str(there))
        name, data = odd_shard(rng, files[shard])
        laid(there, {HEAD: files[HEAD], name: data})
        yield Case(f"odd shard {index}", lambda: attack(there), str(there))

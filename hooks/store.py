"""`ActivationStore`: activations of some sites on disk, and shuffled batches of them in bounded memory.

A store is a folder of shards (safetensors, one tensor [frames, width] per site) and an `index.json`. Shards appear
whole, and only what the index names counts: a filling that was killed goes on behind the last sound in the index.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hooks.capture import capture
from hooks.clip import Clip
from hooks.errors import AudioSteerError
from hooks.files import whole_file
from hooks.model import AudioModel, Source
from hooks.registry import wrap_model

INDEX = "index.json"
SHARD_BYTES = 2**28
DTYPES = {"float16": torch.float16, "float32": torch.float32}
Span = tuple[int, int]


class StoreError(AudioSteerError):
    """A store that cannot be read or written, or that holds something else."""


class ActivationStore:
    """A store that exists. `sites` is {site: {"width", "frame_rate"}}, `sources` the names of the sounds in it.

    Raises:
        StoreError: the folder holds no store, or its index cannot be read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.index: dict[str, Any] = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
            self.model: str = self.index["model"]
            self.sample_rate: int | None = self.index["sample_rate"]
            self.sites: dict[str, dict[str, Any]] = self.index["sites"]
            self.sources: list[str] = [source["name"] for source in self.index["sources"]]
        except FileNotFoundError as error:
            raise StoreError(f"{self.folder}: no activation store there (no {INDEX}); make one with fill") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self.folder / INDEX}: damaged ({error})") from error

    def frames(self, site: str) -> SiteFrames:
        """All frames of a site.

        Raises:
            StoreError: the store does not hold this site.
        """
        if site not in self.sites:
            raise StoreError(f"{self.folder}: holds no site {site!r}; it holds {', '.join(self.sites)}")
        shards = [(self.folder / shard["file"], shard["frames"][site]) for shard in self.index["shards"]]
        return SiteFrames(site, shards, self.sites[site]["width"])

    def source_frames(self, source: str, site: str) -> Tensor:
        """The frames [T, D] of one sound.

        Raises:
            StoreError: the store holds neither this sound nor this site.
        """
        start = 0
        for entry in self.index["sources"]:
            if entry["name"] == source:
                return self.frames(site)[start : start + entry["frames"][site]]
            start += entry["frames"].get(site, 0)
        raise StoreError(f"{self.folder}: holds no source {source!r}")


class SiteFrames:
    """The frames of one site over all shards, as if they were one tensor [N, D]; a slice reads only what it needs."""

    def __init__(self, site: str, shards: Sequence[tuple[Path, int]], width: int) -> None:
        self.site, self.shards = site, shards
        self.shape = (sum(frames for _, frames in shards), width)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Tensor:
        """Frames [rows, D], in the dtype they are stored in."""
        begin, end, _ = rows.indices(len(self))
        pieces, first = [], 0
        for path, frames in self.shards:
            low, high = max(begin - first, 0), min(end - first, frames)
            if low < high:
                try:
                    with safe_open(str(path), "pt") as file:
                        pieces.append(file.get_slice(self.site)[low:high])
                except (OSError, SafetensorError) as error:
                    raise StoreError(f"{path}: damaged or gone ({error})") from error
            first += frames
        return torch.cat(pieces) if pieces else torch.zeros(0, self.shape[1])


# --- writing ---


class _Writer:
    """Collects activations and writes them as shards; the index follows at the end of a source."""

    def __init__(self, folder: Path, head: dict[str, Any], shard_bytes: int) -> None:
        self.folder, self.index, self.shard_bytes = folder, head, shard_bytes
        self.dtype = DTYPES[head["dtype"]]
        self._buffer: dict[str, list[Tensor]] = {}
        self._frames: dict[str, int] = {}
        self._bytes = 0
        self._shards = list(head["shards"])
        self._sources = list(head["sources"])

    @property
    def between_sources(self) -> bool:
        return not self._frames

    def add(self, activations: dict[str, Tensor]) -> None:
        for site, x_BTD in activations.items():
            x_ND = x_BTD.flatten(0, 1).to("cpu", self.dtype)
            if not torch.isfinite(x_ND).all():
                raise StoreError(
                    f"site {site!r}: activations are not finite in {self.index['dtype']}; store them as float32"
                )
            width = self.index["sites"][site].setdefault("width", x_ND.shape[1])
            if width != x_ND.shape[1]:
                raise StoreError(f"site {site!r}: {x_ND.shape[1]} wide, the store holds {width}")
            self._buffer.setdefault(site, []).append(x_ND)
            self._frames[site] = self._frames.get(site, 0) + len(x_ND)
            self._bytes += x_ND.nbytes
        if self._bytes >= self.shard_bytes:
            self._write_shard()

    def finish(self, source: str) -> None:
        self._sources.append({"name": source, "frames": self._frames})
        self._frames = {}
        if len(self._shards) > len(self.index["shards"]):
            # the start of this source is on disk already: the rest follows, so that the index ends with a whole source
            self.flush()

    def flush(self) -> None:
        """Write what is collected. Call it between sources."""
        self._write_shard()
        self.index |= {"shards": list(self._shards), "sources": list(self._sources)}
        with whole_file(self.folder / INDEX) as path:
            path.write_text(json.dumps(self.index, indent=1) + "\n", encoding="utf-8")

    def _write_shard(self) -> None:
        if not self._buffer:
            return
        tensors = {site: torch.cat(pieces) for site, pieces in self._buffer.items()}
        name = f"{len(self._shards):05d}.safetensors"
        with whole_file(self.folder / name) as path:
            save_file(tensors, path)
        self._shards.append({"file": name, "frames": {site: len(x_ND) for site, x_ND in tensors.items()}})
        self._buffer, self._bytes = {}, 0


def fill(
    folder: str | Path,
    model: AudioModel | nn.Module,
    sources: Iterable[Source],
    sites: Sequence[str],
    *,
    dtype: str = "float16",
    shard_bytes: int = SHARD_BYTES,
    max_s: float = 30.0,
    batch: int = 1,
) -> ActivationStore:
    """Run sounds through a model and store what passes at `sites`; sounds that are in the store are not done again.

    `max_s` and `batch` are as in `capture`.
    A sound is known by its path or its clip's name, bare samples by their content. Memory holds one shard at most.

    Raises:
        StoreError: the folder holds a store of another model, other sites or another dtype, or it cannot be written.
        SiteError, AudioFileError: as `capture`; the sounds before one that cannot be read are kept.
    """
    model, folder = wrap_model(model), Path(folder)
    if dtype not in DTYPES:
        raise StoreError(f"a store holds {' or '.join(DTYPES)}, not {dtype}")
    head: dict[str, Any] = {
        "model": model.name,
        "sample_rate": model.sample_rate,
        "dtype": dtype,
        "sites": {name: {"frame_rate": model.site(name).frame_rate} for name in sites},
        "shards": [],
        "sources": [],
    }
    if (folder / INDEX).exists():
        old = ActivationStore(folder).index
        have, want = ([i["model"], i["dtype"], sorted(i["sites"])] for i in (old, head))
        if have != want:
            raise StoreError(f"{folder}: holds {have}, not {want}; choose another folder")
        head = old
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writer = _Writer(folder, head, shard_bytes)
        done = {source["name"] for source in head["sources"]}
        names: dict[int, str] = {}

        def new() -> Iterator[Source]:
            for source in sources:
                name = source_name(source)
                if name not in done:
                    done.add(name)
                    names[id(source)] = name
                    yield source

        try:
            for piece in capture(model, new(), sites, max_s, batch):
                writer.add(piece.activations)
                if piece.last:
                    writer.finish(names.pop(id(piece.source)))
        except AudioSteerError:
            if writer.between_sources:
                writer.flush()
            raise
        writer.flush()
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{folder}: the store could not be written ({error})") from error
    return ActivationStore(folder)


def source_name(source: Source) -> str:
    """What a sound is called in the index."""
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, Clip) and source.name:
        return source.name
    samples = np.ascontiguousarray(source.waveform if isinstance(source, Clip) else source)
    return f"samples:{hashlib.blake2b(samples.tobytes(), digest_size=12).hexdigest()}"


# --- reading in random order ---


def random_blocks(
    frames: int, held_out: float = 0.0, block: int = 1024, seed: int = 0
) -> tuple[list[Span], list[Span]]:
    """Cut 0..frames into blocks and put a random share of them aside: (blocks, held-out blocks).

    Frames beside each other are nearly the same: whole blocks are held out, so that few have a neighbour in the rest.
    """
    block = max(1, min(block, frames // 32))
    spans = [(start, min(start + block, frames)) for start in range(0, frames, block)]
    order = torch.randperm(len(spans), generator=torch.Generator().manual_seed(seed)).tolist()
    count = max(1, round(held_out * len(spans))) if held_out else 0
    aside = set(order[:count])
    return [s for i, s in enumerate(spans) if i not in aside], [s for i, s in enumerate(spans) if i in aside]


def shuffled(
    frames: Tensor | SiteFrames,
    spans: Sequence[Span],
    batch_size: int,
    *,
    seed: int = 0,
    start: int = 0,
    buffer: int = 2**16,
) -> Iterator[Tensor]:
    """Batches [batch_size, D] in random order without end, from batch `start` on; one epoch runs into the next.

    Blocks (`spans`) are read in random order into a buffer of about `buffer` frames and shuffled there. The order
    depends on `seed` only, so that a training that goes on sees the batches that it would have seen.
    """
    total = sum(end - begin for begin, end in spans)
    assert total > 0 and batch_size > 0
    epoch, skip = divmod(start * batch_size, total)
    rest = frames[0:0]
    for number in itertools.count(epoch):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        order = torch.randperm(len(spans), generator=generator).tolist()
        while order:
            window, size = [], 0
            while order and size < buffer:
                window.append(spans[order.pop()])
                size += window[-1][1] - window[-1][0]
            permutation = torch.randperm(size, generator=generator)
            if skip >= size:
                skip -= size
                continue
            rows_ND = torch.cat([frames[begin:end] for begin, end in window])[permutation[skip:]]
            skip = 0
            rest = torch.cat([rest, rows_ND]) if len(rest) else rows_ND
            whole = len(rest) - len(rest) % batch_size
            yield from rest[:whole].split(batch_size) if whole else ()
            rest = rest[whole:]

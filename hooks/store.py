"""`ActivationStore`: activations of some sites on disk, read as if they lay in one tensor for each site.

What a store is made of is told in `hooks.shards`; `hooks.store_writing` fills one. Any number of writers may do so at
once: a sound counts when its shard is there, once, however often it is there, and sounds are in the order of their
names. So the same sounds are the same frames in the same order, whoever wrote them in whatever order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hooks.errors import shortened
from hooks.shards import (
    INDEX,
    StoreError,
    checksum,
    read_head,
    read_index,
    read_shard,
    read_shards,
    tensors_of,
    write_index,
)
from hooks.site import names_of

OPEN = 16
"""So many shards are kept mapped."""


class ActivationStore:
    """A store as it is now; sounds that are written later are not seen.

    `sites` is {site: {"width", "frame_rate"}}, all or those that were asked for, `sources` the names of the sounds in
    it, sorted.

    Raises:
        StoreError: the folder holds no store or not these sites, or a shard is damaged, gone or of another store.
    """

    def __init__(self, folder: str | Path, sites: str | Sequence[str] | None = None) -> None:
        self.folder = Path(folder)
        self.head = read_head(self.folder)
        self.model: str = self.head["model"]
        self.sample_rate: int | None = self.head["sample_rate"]
        self.sites: dict[str, dict[str, Any]] = self.head["sites"]
        if sites is not None:
            self.sites = {site: self._held(site) for site in names_of(sites)}
        try:
            self.shards = read_shards(self.folder, self.head, read_index(self.folder, self.head))
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot be read ({error})") from error
        names = [name for shard in self.shards.values() for name in shard.names]
        order = sorted(range(len(names)), key=names.__getitem__)
        # sorting keeps equals in order: of a sound that is in two shards the one in the first shard by name counts
        kept = [i for before, i in pairwise([-1, *order]) if before < 0 or names[before] != names[i]]
        self.sources: list[str] = [names[i] for i in kept]
        self._kept = np.array(kept, dtype=np.int64)
        self._maps = Maps([(self.folder / name, shard.size) for name, shard in self.shards.items()])
        self._frames: dict[str, SiteFrames] = {}

    def frames(self, site: str) -> SiteFrames:
        """All frames of a site.

        Raises:
            StoreError: the store does not hold this site.
        """
        if site not in self._frames:
            width = self._held(site)["width"]
            dtype = np.dtype(self.head["dtype"])
            pieces = [np.zeros((3, 0), np.int64)]
            for number, (shard, starts) in enumerate(zip(self.shards.values(), self._starts, strict=True)):
                counts = np.array(shard.frames[site], dtype=np.int64)
                places = starts[site] + (counts.cumsum() - counts) * width * dtype.itemsize
                pieces.append(np.stack([np.full_like(counts, number), places, counts]))
            files, places, counts = np.concatenate(pieces, axis=1)[:, self._kept]
            self._frames[site] = SiteFrames(self._maps, files, places, counts, width, dtype)
        return self._frames[site]

    def source_frames(self, source: str, site: str) -> Tensor:
        """The frames [T, D] of one sound.

        Raises:
            StoreError: the store holds neither this sound nor this site.
        """
        index = bisect_left(self.sources, source)
        if self.sources[index : index + 1] != [source]:
            raise StoreError(f"{self.folder}: holds no source {source!r}")
        frames = self.frames(site)
        return frames[int(frames.bounds[index]) : int(frames.bounds[index + 1])]

    def save_index(self) -> None:
        """Write down what the shards' headers say, so that the store opens quickly; deleting it loses nothing.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            write_index(self.folder, self.shards)
        except OSError as error:
            raise StoreError(f"{self.folder / INDEX}: could not be written ({error})") from error

    @cached_property
    def _starts(self) -> list[dict[str, int]]:
        """For each shard the byte at which a site's tensor starts."""
        entries = ((shard.start, tensors_of(self.head, shard.frames)) for shard in self.shards.values())
        return [{site: start + one["data_offsets"][0] for site, one in tensors.items()} for start, tensors in entries]

    def _held(self, site: str) -> dict[str, Any]:
        held = self.head["sites"]
        if site not in held:
            raise StoreError(f"{self.folder}: holds no site {site!r}; it holds {shortened(', '.join(held))}")
        return held[site]


class SiteFrames:
    """The frames of one site over all shards, as if they were one tensor [N, D]; a slice reads only what it needs.

    It can be pickled, and read by many threads and by forks of its process at once.
    """

    def __init__(
        self, maps: Maps, files: np.ndarray, places: np.ndarray, counts: np.ndarray, width: int, dtype: np.dtype
    ) -> None:
        """Sound after sound [S]: which file it is in, at which byte it starts, and how many frames it has."""
        self.maps, self.dtype = maps, dtype
        self.bounds = np.concatenate([[0], counts.cumsum()])
        self.shape = (int(self.bounds[-1]), width)
        self.row_bytes = width * dtype.itemsize
        # sounds one behind the other in a file are one run
        some = counts > 0
        firsts, files, places, counts = self.bounds[:-1][some], files[some], places[some], counts[some]
        apart = (files[1:] != files[:-1]) | (places[1:] != places[:-1] + counts[:-1] * self.row_bytes)
        new = np.concatenate([np.ones(min(1, len(files)), bool), apart])
        self._firsts, self._files, self._places = firsts[new], files[new], places[new]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Tensor:
        """Frames [rows, D], in the dtype they are stored in.

        Raises:
            StoreError: a shard is gone or was changed.
        """
        begin, end, _ = rows.indices(len(self))
        run = int(self._firsts.searchsorted(begin, "right")) - 1
        pieces = [np.zeros(0, np.uint8)]
        while begin < end:
            stop = min(end, int(self._firsts[run + 1])) if run + 1 < len(self._firsts) else end
            place = int(self._places[run]) + (begin - int(self._firsts[run])) * self.row_bytes
            pieces.append(self.maps.bytes_of(int(self._files[run]))[place : place + (stop - begin) * self.row_bytes])
            begin, run = stop, run + 1
        return torch.from_numpy(np.concatenate(pieces).view(self.dtype).reshape(-1, self.shape[1]))


class Maps:
    """Files (path, size in bytes) mapped into memory: the last used of them stay so."""

    def __init__(self, files: Sequence[tuple[Path, int]]) -> None:
        self.files = files
        self._mapped = lru_cache(OPEN)(mapped)

    def __reduce__(self) -> tuple[type[Maps], tuple[Sequence[tuple[Path, int]]]]:
        return Maps, (self.files,)

    def bytes_of(self, number: int) -> np.ndarray:
        return self._mapped(*self.files[number])


def mapped(path: Path, size: int) -> np.ndarray:
    try:
        raw_N = np.asarray(np.memmap(path, np.uint8, "r"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: damaged or gone ({error})") from error
    if len(raw_N) != size:
        raise StoreError(f"{path}: damaged: {len(raw_N)} bytes, not {size}")
    return raw_N


def verify(folder: str | Path) -> list[str]:
    """What is wrong with the files of a store, in words; everything is read once, a little at a time.

    It takes a folder because a store with a damaged header does not open.

    Raises:
        StoreError: there is no store, or its head cannot be read.
    """
    folder, wrong = Path(folder), []
    head, known = read_head(folder), {}
    try:
        known = read_index(folder, head)
    except StoreError as error:
        wrong.append(str(error))
    there = {path.name for path in folder.glob("*.safetensors") if not path.name.startswith(".")}
    for path in (folder / name for name in sorted(there | known.keys())):
        try:
            shard = read_shard(path, head)
            if known.get(path.name, shard) != shard:
                wrong.append(f"{folder / INDEX}: says something else of {path.name} than that; delete the index")
            with path.open("rb") as file:
                file.seek(shard.start)
                for site, entry in tensors_of(head, shard.frames).items():
                    begin, end = entry["data_offsets"]
                    if checksum(file, end - begin) != shard.checksums.get(site):
                        wrong.append(f"{path}: damaged (the checksum of {site!r} is another one)")
        except StoreError as error:
            wrong.append(str(error))
        except OSError as error:
            wrong.append(f"{path}: cannot be read ({error})")
    return wrong

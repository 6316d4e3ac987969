"""`fill`: run sounds through a model and keep its activations; `ShardWriter` and `write_shard` for those who run it.

Any number of writers (threads, processes, machines) may fill one store at once, each with a `ShardWriter` of its own:
a shard appears whole or not at all, and no writer changes what another one wrote.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

import numpy as np
import torch
from torch import Tensor, nn

from hooks.capture import capture, wrapped
from hooks.clip import Clip
from hooks.errors import shortened
from hooks.files import PARTIAL, whole_file
from hooks.model import AudioModel, Source
from hooks.shards import (
    CHUNK,
    DTYPES,
    HEAD,
    INDEX,
    Head,
    Shard,
    StoreError,
    checksum,
    claim,
    differences,
    read_shards,
    shard_header,
    shard_name,
)
from hooks.site import names_of
from hooks.store import ActivationStore

SHARD_BYTES, SHARD_MINUTES = 2**28, 5.0
LEFT_S = 3600.0
"""A file that was begun so many seconds ago and never finished belongs to a writer that was killed."""


def head_of(model: AudioModel, sites: str | Sequence[str], dtype: str = "float16") -> Head:
    """The head of a store of these sites; their widths are not known yet.

    Raises:
        StoreError: a dtype that no store holds.
        SiteError: an unknown site.
    """
    if dtype not in DTYPES:
        raise StoreError(f"a store holds {' or '.join(DTYPES)}, not {dtype}")
    rates = {name: model.site(name).frame_rate for name in names_of(sites)}
    return {
        "model": model.name,
        "sample_rate": model.sample_rate,
        "dtype": dtype,
        "sites": {name: {"frame_rate": rate, "width": None} for name, rate in rates.items()},
    }


def check_head(store: ActivationStore, head: Head) -> None:
    """Raises StoreError if the store holds something else."""
    if other := differences(store.head, head):
        raise StoreError(f"{store.folder}: holds {shortened(other)}; choose another folder")


class ShardWriter:
    """Collects the activations of sounds and writes them as shards.

    Memory holds up to two times `shard_bytes`; of a longer sound the rest waits on disk, in a file without a name.
    """

    def __init__(self, folder: str | Path, head: Head, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder, self.shard_bytes = Path(folder), shard_bytes
        self.head = {**head, "sites": {site: dict(about) for site, about in head["sites"].items()}}
        self._claimed = False
        self._begin()

    def _begin(self) -> None:
        self._names: list[str] = []
        self._frames: dict[str, list[int]] = {site: [] for site in self.head["sites"]}
        self._rows = {
            site: SpooledTemporaryFile(dir=str(self.folder))  # noqa: SIM115 (flush closes it)
            for site in self.head["sites"]
        }
        self._open = dict.fromkeys(self.head["sites"], 0)
        self._bytes = 0

    @property
    def full(self) -> bool:
        return self._bytes >= self.shard_bytes

    def add(self, activations: Mapping[str, Tensor]) -> None:
        """More of the sound that is to be finished: {site: [T, D] or [B, T, D], row behind row}.

        Raises:
            StoreError: activations that are not finite in the store's dtype, other sites, widths or another head than
                the store's.
            OSError: the folder cannot be written to.
        """
        sites, dtype = self.head["sites"], self.head["dtype"]
        if activations.keys() != sites.keys():
            raise StoreError(f"{self.folder}: is for the sites {', '.join(sites)}, not {', '.join(activations)}")
        rows = {s: x.detach().flatten(0, -2).to("cpu", getattr(torch, dtype)) for s, x in activations.items()}
        for site, x_ND in rows.items():
            if not torch.isfinite(x_ND).all():
                raise StoreError(f"site {site!r}: activations are not finite in {dtype}; store them as float32")
            if sites[site]["width"] not in (None, x_ND.shape[1]):
                raise StoreError(f"site {site!r}: {x_ND.shape[1]} wide, the store holds {sites[site]['width']}")
            sites[site]["width"] = x_ND.shape[1]
        if not self._claimed:
            self.folder.mkdir(parents=True, exist_ok=True)
            claim(self.folder, self.head)
            self._claimed = True
        for site, x_ND in rows.items():
            self._rows[site].write(x_ND.contiguous().numpy().tobytes())
            self._open[site] += len(x_ND)
            self._bytes += x_ND.nbytes
        if self._bytes > 2 * self.shard_bytes:
            for file in self._rows.values():
                file.rollover()

    def finish(self, source: str) -> None:
        """The sound is whole. Look at `full` then."""
        self._names.append(source)
        for site, count in self._open.items():
            self._frames[site].append(count)
        self._open = dict.fromkeys(self._open, 0)
        self._bytes += len(source)

    def flush(self) -> Path | None:
        """Write the sounds that are whole as a shard, if there are any; what was added behind them is dropped.

        Raises:
            OSError: it cannot be written.
        """
        names, frames, rows = self._names, self._frames, self._rows
        self._begin()
        try:
            return self._write(names, frames, rows) if names else None
        finally:
            for file in rows.values():
                file.close()

    def _write(self, names: list[str], frames: dict[str, list[int]], rows: Mapping[str, IO[bytes]]) -> Path:
        sums = {}
        for site, file in rows.items():
            size = sum(frames[site]) * self.head["sites"][site]["width"] * DTYPES[self.head["dtype"]][1]
            file.seek(size)
            file.truncate()
            file.seek(0)
            sums[site] = checksum(file, size)
        path = self.folder / shard_name(self.head, names, frames)
        with whole_file(path) as partial, partial.open("wb") as shard:
            shard.write(shard_header(self.head, names, frames, sums))
            for _, file in sorted(rows.items()):
                file.seek(0)
                shutil.copyfileobj(file, shard, CHUNK)
        return path


def write_shard(folder: str | Path, head: Head, sounds: Iterable[tuple[str, Mapping[str, Tensor]]]) -> Path | None:
    """Write one shard of whole sounds, [(name, {site: [T, D]})]; its path, or None if there are no sounds.

    The folder becomes a store of this head (`head_of`), if it is none yet.

    Raises:
        StoreError: as `ShardWriter.add`, or the shard cannot be written.
    """
    try:
        writer = ShardWriter(folder, head)
        for name, activations in sounds:
            writer.add(activations)
            writer.finish(name)
        return writer.flush()
    except OSError as error:
        raise StoreError(f"{folder}: the store could not be written ({error})") from error


def fill(
    folder: str | Path,
    model: AudioModel | nn.Module,
    sources: Iterable[Source],
    sites: str | Sequence[str],
    *,
    dtype: str = "float16",
    shard_bytes: int = SHARD_BYTES,
    shard_minutes: float = SHARD_MINUTES,
    max_s: float = 30.0,
    batch: int = 1,
) -> ActivationStore:
    """Run sounds through a model and store what passes at `sites`; sounds that are in the store are not done again.

    A shard is written when it holds `shard_bytes`, and `shard_minutes` after the last one: that much is lost where the
    process is killed. `max_s` and `batch` are as in `capture`. Several processes may fill one store with the same
    sounds: what the others wrote is looked at whenever a shard is written. A sound is known by its path or its clip's
    name, samples and bytes by their content. Memory: as `ShardWriter`.

    Raises:
        StoreError: the folder holds a store of another model, other sites or another dtype, it is damaged or cannot be
            written, or there is neither a store nor a sound.
        SiteError, AudioFileError: as `capture`; the sounds before one that cannot be read are kept.
    """
    folder = Path(folder)
    with wrapped(model) as model:
        head = head_of(model, sites, dtype)
        shards: dict[str, Shard] = {}
        done: set[str] = set()
        if (folder / HEAD).exists() or (folder / INDEX).exists():
            store = ActivationStore(folder)
            check_head(store, head)
            head, shards, done = store.head, store.shards, set(store.sources)
            clear_left(folder)
        names: dict[int, str] = {}

        def new() -> Iterator[Source]:
            for source in sources:
                read = getattr(source, "read", None)
                source = source if read is None else read()
                name = source_name(source)
                if name not in done:
                    done.add(name)
                    names[id(source)] = name
                    yield source

        try:
            writer = ShardWriter(folder, head, shard_bytes)
            try:
                written = time.monotonic()
                for piece in capture(model, new(), sites, max_s, batch):
                    writer.add(piece.activations)
                    if piece.last:
                        writer.finish(names.pop(id(piece.source)))
                    late = time.monotonic() - written >= 60 * shard_minutes
                    if piece.last and (writer.full or late):
                        writer.flush()
                        written = time.monotonic()
                        before, shards = shards, read_shards(folder, writer.head, shards)
                        done.update(name for key in shards.keys() - before.keys() for name in shards[key].names)
            finally:
                writer.flush()
        except OSError as error:
            raise StoreError(f"{folder}: the store could not be written ({error})") from error
        store = ActivationStore(folder)
        store.save_index()
        return store


def clear_left(folder: Path) -> None:
    """Delete what writers that were killed left of files; those that are being written now are younger."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            if PARTIAL.fullmatch(path.name) and time.time() - path.stat().st_mtime > LEFT_S:
                path.unlink()


def source_name(source: Source) -> str:
    """What a sound is called in a store."""
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, Clip) and source.name:
        return source.name
    samples = source.waveform if isinstance(source, Clip) else source[0] if isinstance(source, tuple) else source
    data = samples if isinstance(samples, bytes) else np.ascontiguousarray(samples).tobytes()
    return f"samples:{hashlib.blake2b(data, digest_size=12).hexdigest()}"

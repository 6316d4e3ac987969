import tracemalloc
from itertools import islice
from pathlib import Path

import pytest
import torch

from hooks.shuffle import random_blocks, shuffled
from hooks.store import ActivationStore
from hooks.store_writing import fill, write_shard
from tests.hooks.tiny import clips, tiny_model


def test_blocks_cover_everything_once() -> None:
    kept, aside = random_blocks(10_007, held_out=0.1)
    rows = torch.cat([torch.arange(*span) for span in kept + aside])
    assert torch.equal(rows.sort().values, torch.arange(10_007))
    assert sum(end - begin for begin, end in aside) == pytest.approx(1000, abs=400)  # whole blocks of 312 frames
    assert random_blocks(100)[1] == []


@pytest.mark.parametrize("buffer", [64, 1000])
def test_every_frame_once_an_epoch_in_another_order(buffer: int) -> None:
    frames = torch.arange(500)[:, None]
    spans = random_blocks(500)[0]
    stream = torch.cat(list(islice(shuffled(frames, spans, 50, buffer=buffer), 20)))[:, 0]
    first, second = stream[:500], stream[500:]
    assert torch.equal(first.sort().values, torch.arange(500))
    assert torch.equal(second.sort().values, torch.arange(500))
    assert not torch.equal(first, second)
    assert (first.diff() == 1).float().mean() < 0.2  # neighbours are torn apart: with 64 frames 1/64 by chance


@pytest.mark.parametrize("start", [1, 7, 13, 40])
def test_a_stream_that_starts_late_is_the_rest_of_the_whole_one(start: int) -> None:
    frames = torch.arange(500)[:, None]
    spans = random_blocks(500)[0]
    whole = list(islice(shuffled(frames, spans, 33, buffer=100), start + 5))
    late = list(islice(shuffled(frames, spans, 33, start=start, buffer=100), 5))
    assert all(torch.equal(a, b) for a, b in zip(whole[start:], late, strict=True))


def test_batches_from_a_store(tmp_path: Path) -> None:
    frames = fill(tmp_path, tiny_model(), clips(4), ["fine"], shard_bytes=9000).frames("fine")
    spans = random_blocks(len(frames))[0]
    from_disk = list(islice(shuffled(frames, spans, 100, buffer=300), 9))
    from_memory = list(islice(shuffled(frames[:], spans, 100, buffer=300), 9))
    assert all(torch.equal(a, b) for a, b in zip(from_disk, from_memory, strict=True))


def test_memory_is_bounded_whatever_the_store_holds(tmp_path: Path) -> None:
    head = {
        "model": "any",
        "sample_rate": None,
        "dtype": "float16",
        "sites": {"wide": {"frame_rate": None, "width": 64}},
    }
    numbers = torch.arange(16 * 4096, dtype=torch.int64)
    for shard_N in numbers.split(4096):
        # a frame is its number in base 16, which float16 holds exactly
        digits_ND = torch.stack([shard_N // 16**place % 16 for place in range(4)], dim=1).repeat(1, 16)
        write_shard(tmp_path, head, [(f"{shard_N[0]:06d}", {"wide": digits_ND.float()})])
    frames = ActivationStore(tmp_path).frames("wide")
    spans = random_blocks(len(frames), block=256)[0]
    seen = torch.zeros(len(frames), dtype=torch.int64)
    tracemalloc.start()  # numpy tells it what it allocates: what is read
    for batch_ND in islice(shuffled(frames, spans, 512, buffer=2048), len(frames) // 512):
        row_N = (batch_ND[:, :4].long() * torch.tensor([1, 16, 256, 4096])).sum(1)
        seen[row_N] += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert torch.equal(seen, torch.ones_like(seen))
    assert len(frames) * 128 == 2**23  # bytes in the store
    assert peak < 2.5 * 2048 * 128

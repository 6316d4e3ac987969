import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn

from hooks import AudioFileError, AudioModel, Clip, Site, capture
from hooks.store import INDEX, ActivationStore, StoreError, fill, random_blocks, shuffled


class Tiny(nn.Module):
    """[B, 1, N] -> a fine site (one frame in 10 samples, 6 wide) and a coarse one (one in 40, 3 wide)."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv1d(1, 6, 10, 10)
        self.coarse = nn.Conv1d(6, 3, 4, 4)

    def forward(self, x_BCN: torch.Tensor) -> torch.Tensor:
        return self.coarse(self.fine(x_BCN))


def tiny_model() -> AudioModel:
    torch.manual_seed(3)
    sites = [Site("fine", "fine", "BDT", frame_rate=800.0), Site("coarse", "coarse", "BDT", frame_rate=200.0)]
    return AudioModel(Tiny(), sites, name="tiny", sample_rate=8000)


def clips(count: int) -> list[Clip]:
    generator = torch.Generator().manual_seed(5)
    return [Clip(torch.rand(4000 + 40 * i, generator=generator) - 0.5, 8000, f"clip{i}") for i in range(count)]


SITES = ["fine", "coarse"]


def test_holds_what_capture_gives(tmp_path: Path) -> None:
    model = tiny_model()
    store = fill(tmp_path, model, clips(5), SITES, dtype="float32", shard_bytes=20_000)
    assert len(store.index["shards"]) > 1
    captured = list(capture(model, clips(5), SITES))
    for site in SITES:
        expected = torch.cat([piece.activations[site][0] for piece in captured])
        assert torch.equal(store.frames(site)[:], expected)
        assert torch.equal(store.frames(site)[37:611], expected[37:611])
        assert torch.equal(store.source_frames("clip3", site), captured[3].activations[site][0])
    assert store.sites["coarse"] == {"frame_rate": 200.0, "width": 3}
    assert (store.model, store.sample_rate) == ("tiny", 8000)


def test_batches_of_sounds_are_stored_as_single_ones(tmp_path: Path) -> None:
    sounds = [*clips(3), *clips(1), Clip(torch.randn(1, 2_000), 1_000, "longer")]
    one, several = (fill(tmp_path / str(n), tiny_model(), sounds, SITES, max_s=0.5, batch=n) for n in (1, 4))
    assert several.sources == one.sources
    for site in SITES:
        torch.testing.assert_close(several.frames(site)[0:10_000], one.frames(site)[0:10_000])


def test_half_precision_is_the_default(tmp_path: Path) -> None:
    model = tiny_model()
    frames = fill(tmp_path, model, clips(1), ["fine"]).frames("fine")[:]
    (piece,) = capture(model, clips(1), ["fine"])
    assert torch.equal(frames, piece.activations["fine"][0].half())


def test_a_long_sound_spans_shards_and_comes_back_whole(tmp_path: Path) -> None:
    model = tiny_model()
    store = fill(tmp_path, model, clips(2), ["fine"], dtype="float32", shard_bytes=3000, max_s=0.1)
    assert len(store.index["shards"]) > len(store.sources) == 2
    expected = [piece.activations["fine"][0] for piece in capture(model, clips(2)[1:], ["fine"], max_s=0.1)]
    assert torch.equal(store.source_frames("clip1", "fine"), torch.cat(expected))


def test_goes_on_and_does_nothing_twice(tmp_path: Path) -> None:
    model, calls = tiny_model(), []
    model.module.register_forward_hook(lambda *args: calls.append(1))
    fill(tmp_path, model, clips(3), SITES)
    assert len(calls) == 3
    fill(tmp_path, model, clips(5), SITES)
    assert len(calls) == 5
    whole = fill(tmp_path / "at_once", model, clips(5), SITES)
    again = ActivationStore(tmp_path)
    assert again.sources == whole.sources
    assert torch.equal(again.frames("fine")[:], whole.frames("fine")[:])


def test_bare_samples_are_known_by_their_content(tmp_path: Path) -> None:
    model, samples = tiny_model(), torch.rand(4000)
    store = fill(tmp_path, model, [samples, samples.clone(), samples * 0.5], ["fine"])
    assert len(store.sources) == 2


KILLED = """
import sys; sys.path[:0] = sys.argv[2:]
import torch; torch.set_num_threads(1)
from test_store import SITES, clips, fill, tiny_model
def slow():
    for clip in clips(200):
        yield clip
        print(clip.name, flush=True)
fill(sys.argv[1], tiny_model(), slow(), SITES, shard_bytes=20_000)
"""


def test_killed_and_resumed_is_the_same_store(tmp_path: Path) -> None:
    here = Path(__file__)
    paths = [str(here.parent), str(here.parents[2])]
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), *paths]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (tmp_path / "killed" / INDEX).exists():
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < len(ActivationStore(tmp_path / "killed").sources) < 200
    resumed = fill(tmp_path / "killed", tiny_model(), clips(200), SITES, shard_bytes=20_000)
    whole = fill(tmp_path / "whole", tiny_model(), clips(200), SITES, shard_bytes=20_000)
    assert resumed.sources == whole.sources
    for site in SITES:
        assert torch.equal(resumed.frames(site)[:], whole.frames(site)[:])


def test_a_sound_that_cannot_be_read_loses_nothing_before_it(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError):
        fill(tmp_path, tiny_model(), [*clips(2), tmp_path / "missing.wav"], SITES)
    assert ActivationStore(tmp_path).sources == ["clip0", "clip1"]


def test_errors(tmp_path: Path) -> None:
    model = tiny_model()
    with pytest.raises(StoreError, match="no activation store"):
        ActivationStore(tmp_path)
    store = fill(tmp_path, model, clips(1), ["fine"])
    with pytest.raises(StoreError, match="no site 'coarse'"):
        store.frames("coarse")
    with pytest.raises(StoreError, match="no source 'clip9'"):
        store.source_frames("clip9", "fine")
    with pytest.raises(StoreError, match="choose another folder"):
        fill(tmp_path, model, clips(1), SITES)
    with pytest.raises(StoreError, match="float16 or float32"):
        fill(tmp_path / "other", model, clips(1), SITES, dtype="int8")
    with torch.no_grad():
        model.module.fine.weight.mul_(1e7)
    with pytest.raises(StoreError, match="store them as float32"):
        fill(tmp_path / "large", model, clips(1), ["fine"])
    (tmp_path / INDEX).write_text("[]")
    with pytest.raises(StoreError, match="damaged"):
        ActivationStore(tmp_path)


# --- reading in random order ---


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

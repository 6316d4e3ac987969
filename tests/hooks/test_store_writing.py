import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hooks import AudioFileError, Clip, capture, write_clip
from hooks.families.wavtokenizer import WavTokenizerCodec
from hooks.shards import HEAD, StoreError, read_head
from hooks.store import ActivationStore, verify
from hooks.store_writing import LEFT_S, ShardWriter, fill, head_of, write_shard
from tests.hooks.tiny import SITES, clips, tiny_model


def same(one: ActivationStore, other: ActivationStore) -> bool:
    return one.sources == other.sources and all(
        torch.equal(one.frames(site)[:], other.frames(site)[:]) for site in SITES
    )


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


def test_a_long_sound_stays_in_one_shard_and_comes_back_whole(tmp_path: Path) -> None:
    model = tiny_model()
    store = fill(tmp_path, model, clips(2), ["fine"], dtype="float32", shard_bytes=1000, max_s=0.1)
    assert [shard.names for shard in store.shards.values()] in ([["clip000"], ["clip001"]], [["clip001"], ["clip000"]])
    expected = [piece.activations["fine"][0] for piece in capture(model, clips(2)[1:], ["fine"], max_s=0.1)]
    assert torch.equal(store.source_frames("clip001", "fine"), torch.cat(expected))


@pytest.mark.parametrize(("minutes", "shards"), [(0.0, 3), (60.0, 1)])
def test_shards_are_written_as_time_passes(tmp_path: Path, minutes: float, shards: int) -> None:
    """So that a process that is killed in the third sound has two."""
    there: list[int] = []

    def sounds() -> Iterator[Clip]:
        for clip in clips(3):
            there.append(len(list(tmp_path.glob("*.safetensors"))))
            yield clip

    store = fill(tmp_path, tiny_model(), sounds(), ["fine"], shard_minutes=minutes)
    assert there == ([0, 1, 2] if shards == 3 else [0, 0, 0])
    assert len(store.shards) == shards and len(store.sources) == 3


def test_memory_is_that_of_two_shards_however_long_a_sound(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, head_of(tiny_model(), ["fine"], "float32"), shard_bytes=100_000)
    pieces = [torch.full((1, 2000, 6), float(number)) for number in range(60)]  # 48,000 bytes each
    tracemalloc.start()
    for piece in pieces:
        writer.add({"fine": piece})
    writer.finish("long")
    path = writer.flush()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path is not None
    assert path.stat().st_size > 60 * 48_000
    assert peak < 2 * 100_000 + 3 * 48_000 + 2 * 2**20  # the shard is copied a MiB at a time
    assert torch.equal(load_file(path)["fine"], torch.cat(pieces, dim=1)[0])
    assert [file.name for file in tmp_path.iterdir() if file.name not in (path.name, HEAD)] == []


def test_goes_on_and_does_nothing_twice(tmp_path: Path) -> None:
    model, calls = tiny_model(), []
    model.module.register_forward_hook(lambda *args: calls.append(1))
    fill(tmp_path, model, clips(3), SITES)
    assert len(calls) == 3
    fill(tmp_path, model, clips(5), SITES)
    assert len(calls) == 5
    whole = fill(tmp_path / "at_once", model, clips(5), SITES)
    assert same(ActivationStore(tmp_path), whole)


def test_bare_samples_are_known_by_their_content(tmp_path: Path) -> None:
    model, samples = tiny_model(), torch.rand(4000)
    store = fill(tmp_path, model, [samples, samples.clone(), samples * 0.5], ["fine"])
    assert len(store.sources) == 2


def test_one_site_by_its_name(tmp_path: Path) -> None:
    store = fill(tmp_path, tiny_model(), clips(1), "fine")
    assert list(store.sites) == list(ActivationStore(tmp_path, "fine").sites) == ["fine"]


def test_a_users_module_keeps_its_mode(codec: WavTokenizerCodec, tmp_path: Path) -> None:
    fill(tmp_path, codec.module.train(), [torch.randn(1, 400)], ["latent"])
    assert all(part.training for part in codec.module.modules())


# --- several writers ---


# two thirds of the sounds, each in an order of its own, so that every sound is met by two writers
THIRD = """
import sys, time, torch
from hooks.store_writing import fill
from tiny import SITES, clips, tiny_model

def slow():
    for clip in mine[third * 7 :] + mine[: third * 7]:
        time.sleep(0.002)
        yield clip

torch.set_num_threads(1)
third = int(sys.argv[2])
mine = [clip for number, clip in enumerate(clips(60)) if number % 3 != third]
print("ready", flush=True)
sys.stdin.readline()
fill(sys.argv[1], tiny_model(), slow(), SITES, shard_bytes=20_000 + 3_000 * third)
"""


def process(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python of its own, that knows what stands beside this file."""
    here = Path(__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parents[2]), str(here.parent)])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_processes_that_fill_a_store_at_once(tmp_path: Path) -> None:
    writers = [process(THIRD, tmp_path / "many", number) for number in range(3)]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=120)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    many = ActivationStore(tmp_path / "many")
    one = fill(tmp_path / "one", tiny_model(), clips(60), SITES, shard_bytes=20_000)
    assert many.sources == [clip.name for clip in clips(60)]
    assert same(many, one)
    assert verify(tmp_path / "many") == []
    assert not [path for path in many.folder.iterdir() if path.name.startswith(".")]


def test_what_others_wrote_meanwhile_is_not_done_again(tmp_path: Path) -> None:
    model, calls = tiny_model(), []
    model.module.register_forward_hook(lambda *args: calls.append(1))

    def sounds() -> Iterator[Clip]:
        yield from clips(2)
        fill(tmp_path, tiny_model(), clips(6)[2:], SITES)  # another process
        yield from clips(8)[2:]

    store = fill(tmp_path, model, sounds(), SITES, shard_bytes=1)
    # the third sound is read before the second one's shard is written
    assert store.sources == [clip.name for clip in clips(8)]
    assert len(calls) <= 5


def test_another_model_that_comes_at_once_is_turned_away(tmp_path: Path) -> None:
    def sounds() -> Iterator[Clip]:
        fill(tmp_path, tiny_model("large"), clips(1), SITES)
        yield from clips(1)

    with pytest.raises(StoreError, match="holds model 'large', not 'tiny'; choose another folder"):
        fill(tmp_path, tiny_model(), sounds(), SITES)
    assert verify(tmp_path) == []
    assert ActivationStore(tmp_path).model == "large"


def test_shards_of_ones_own_work(tmp_path: Path) -> None:
    model = tiny_model()
    captured = [
        (clip.name, {site: x_BTD[0] for site, x_BTD in piece.activations.items()})
        for clip, piece in zip(clips(6), capture(model, clips(6), SITES), strict=True)
    ]
    for start in (0, 2, 4):
        write_shard(tmp_path / "own", head_of(model, SITES), captured[start : start + 2])
    assert same(ActivationStore(tmp_path / "own"), fill(tmp_path / "filled", model, clips(6), SITES))
    assert read_head(tmp_path / "own") == read_head(tmp_path / "filled")


# --- killed ---


# it takes its time, and is killed at some moment behind some sound; the forks save loading torch again
KILLED = """
import os, random, signal, sys, threading, time
import torch
from hooks.store_writing import fill
from tiny import SITES, clips, tiny_model

def slow(last, seconds):
    for number, clip in enumerate(clips(150)):
        if number == last:
            threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        time.sleep(0.002)
        yield clip

torch.set_num_threads(1)
draw = random.Random(7)
for attempt in range(6):
    last, seconds = draw.randrange(10, 100), draw.uniform(0, 0.01)
    child = os.fork()
    if not child:
        fill(sys.argv[1], tiny_model(), slow(last, seconds), SITES, shard_bytes=20_000)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_killed_at_any_moment_and_resumed_is_the_same_store(tmp_path: Path) -> None:
    codes = process(KILLED, tmp_path / "killed").communicate(timeout=120)[0].split()
    assert len(codes) == 6
    assert str(-signal.SIGKILL) in codes
    assert verify(tmp_path / "killed") == []
    for path in (tmp_path / "killed").glob(".*"):
        os.utime(path, (0, 0))
    resumed = fill(tmp_path / "killed", tiny_model(), clips(150), SITES, shard_bytes=20_000)
    whole = fill(tmp_path / "whole", tiny_model(), clips(150), SITES, shard_bytes=20_000)
    assert same(resumed, whole)
    files = [sorted(path.name for path in folder.iterdir()) for folder in (resumed.folder, whole.folder)]
    assert files[0] == files[1]  # nothing is left of what was begun, and nothing is there twice


def test_only_what_was_left_long_ago_is_cleared(tmp_path: Path) -> None:
    fill(tmp_path, tiny_model(), clips(1), SITES)
    old, young, other = (tmp_path / name for name in (".a.0123abcd.partial", ".b.0123abcd.partial", ".c"))
    for path in (old, young, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (time.time() - LEFT_S - 10,) * 2)
    fill(tmp_path, tiny_model(), clips(2), SITES)
    assert (old.exists(), young.exists(), other.exists()) == (False, True, True)


# --- mistakes ---


@pytest.mark.parametrize("stretch_s", [30.0, 0.1])
def test_a_sound_that_cannot_be_read_loses_nothing_before_it(tmp_path: Path, stretch_s: float) -> None:
    with pytest.raises(AudioFileError):
        fill(tmp_path, tiny_model(), [*clips(2), tmp_path / "missing.wav"], SITES, max_s=stretch_s)
    assert ActivationStore(tmp_path).sources == ["clip000", "clip001"]


def test_a_sound_that_was_begun_is_dropped(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, head_of(tiny_model(), ["fine"], "float32"))
    writer.add({"fine": torch.ones(3, 6)})
    writer.finish("whole")
    writer.add({"fine": torch.zeros(2, 6)})
    writer.flush()
    writer.add({"fine": torch.full((1, 6), 2.0)})
    writer.finish("other")
    writer.flush()
    store = ActivationStore(tmp_path)
    assert store.sources == ["other", "whole"]
    assert store.frames("fine")[:][:, 0].tolist() == [2, 1, 1, 1]


def test_errors(tmp_path: Path) -> None:
    model = tiny_model()
    fill(tmp_path, model, clips(1), ["fine"])
    with pytest.raises(StoreError, match="holds sites fine, not fine, coarse; choose another folder"):
        fill(tmp_path, model, clips(1), SITES)
    with pytest.raises(StoreError, match="float16 or float32"):
        fill(tmp_path / "other", model, clips(1), SITES, dtype="int8")
    with pytest.raises(StoreError, match="no activation store there"):
        fill(tmp_path / "none", model, [], SITES)
    head = head_of(model, ["fine"])
    with pytest.raises(StoreError, match="is for the sites fine, not coarse"):
        write_shard(tmp_path, head, [("a", {"coarse": torch.ones(1, 3)})])
    with pytest.raises(StoreError, match="site 'fine' of width 6, not 5"):
        write_shard(tmp_path, head, [("a", {"fine": torch.ones(1, 5)})])
    with pytest.raises(StoreError, match="site 'fine': 5 wide, the store holds 6"):
        write_shard(tmp_path, head, [("a", {"fine": torch.ones(1, 6)}), ("b", {"fine": torch.ones(1, 5)})])
    with pytest.raises(StoreError, match="could not be written"):
        write_shard(tmp_path / HEAD, head, [("a", {"fine": torch.ones(1, 6)})])
    assert ActivationStore(tmp_path).sources == ["clip000"]


def test_what_float16_cannot_hold_loses_nothing_before_it(tmp_path: Path) -> None:
    loud = Clip(clips(1)[0].waveform * 1e7, 8000, "loud")
    with pytest.raises(StoreError, match="store them as float32"):
        fill(tmp_path, tiny_model(), [*clips(2), loud, *islice(clips(4), 2, None)], ["fine"])
    assert ActivationStore(tmp_path).sources == ["clip000", "clip001"]


def test_sounds_in_memory_are_known_by_what_they_hold(tmp_path: Path) -> None:
    (clip,) = clips(1)
    write_clip(clip, tmp_path / "a.wav", "FLOAT")
    data = (tmp_path / "a.wav").read_bytes()
    pair = (clip.waveform + 0.1, 8000)
    store = fill(tmp_path / "store", tiny_model(), [data, BytesIO(data), pair, (tmp_path / "a.wav")], SITES)
    assert len(store.sources) == 3 and sum(name.startswith("samples:") for name in store.sources) == 2
    assert fill(tmp_path / "store", tiny_model(), [BytesIO(data), pair], SITES).sources == store.sources

import json
import pickle
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hooks import capture
from hooks.shards import HEAD, INDEX, StoreError, write_index
from hooks.store import OPEN, ActivationStore, verify
from hooks.store_writing import fill, head_of, write_shard
from tests.hooks.tiny import SITES, clips, tiny_model


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of six sounds in three shards."""
    folder = tmp_path_factory.mktemp("filled")
    assert len(fill(folder, tiny_model(), clips(6), SITES, shard_bytes=10_000).shards) == 3
    return folder


@pytest.fixture
def folder(filled: Path, tmp_path: Path) -> Path:
    """A copy of it that may be damaged."""
    return Path(shutil.copytree(filled, tmp_path / "store"))


def shards_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


# --- reading ---


def test_holds_what_capture_gives(tmp_path: Path) -> None:
    model = tiny_model()
    store = fill(tmp_path, model, clips(5), SITES, dtype="float32", shard_bytes=20_000)
    assert len(store.shards) > 1
    captured = list(capture(model, clips(5), SITES))
    for site in SITES:
        expected = torch.cat([piece.activations[site][0] for piece in captured])
        assert torch.equal(store.frames(site)[:], expected)
        assert torch.equal(store.frames(site)[37:611], expected[37:611])
        assert torch.equal(store.source_frames("clip003", site), captured[3].activations[site][0])
    assert store.sites["coarse"] == {"frame_rate": 200.0, "width": 3}
    assert (store.model, store.sample_rate) == ("tiny", 8000)


def test_sounds_are_in_the_order_of_their_names_whoever_wrote_what(filled: Path, tmp_path: Path) -> None:
    backwards = fill(tmp_path / "back", tiny_model(), clips(6)[::-1], SITES, shard_bytes=15_000)
    whole = ActivationStore(filled)
    assert backwards.shards.keys() != whole.shards.keys()
    assert backwards.sources == whole.sources == sorted(whole.sources)
    for site in SITES:
        assert torch.equal(backwards.frames(site)[:], whole.frames(site)[:])


def test_every_slice_is_that_of_the_whole(tmp_path: Path) -> None:
    # several short sounds a shard, some of no frame at all, in an order that is not that of the names
    draw = random.Random(0)
    head = head_of(tiny_model(), ["fine"], "float32")
    lengths = {f"{number:02d}": draw.choice([0, 1, 2, 5, 30]) for number in range(40)}
    sounds = {name: torch.randn(length, 6) for name, length in lengths.items()}
    names = draw.sample(sorted(sounds), len(sounds))
    for start in range(0, 40, 8):
        write_shard(tmp_path, head, [(name, {"fine": sounds[name]}) for name in names[start : start + 8]])
    store = ActivationStore(tmp_path)
    frames, whole_ND = store.frames("fine"), torch.cat([sounds[name] for name in sorted(sounds)])
    assert frames.shape == whole_ND.shape
    for _ in range(300):
        begin, end = draw.randrange(len(frames) + 5), draw.randrange(len(frames) + 5)
        assert torch.equal(frames[begin:end], whole_ND[begin:end])
    assert all(torch.equal(store.source_frames(name, "fine"), x_ND) for name, x_ND in sounds.items())


def test_a_sound_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    head = head_of(tiny_model(), ["fine"], "float32")
    groups = [{"a": 0.0, "b": 1.0}, {"b": 2.0, "c": 3.0}]
    found = []
    for order in (groups, groups[::-1]):
        folder = tmp_path / str(len(found))
        paths = [
            write_shard(folder, head, [(n, {"fine": torch.full((2, 6), v)}) for n, v in group.items()])
            for group in order
        ]
        first = min(zip((path.name for path in paths), order, strict=True))[1]
        store = ActivationStore(folder)
        assert store.sources == ["a", "b", "c"]
        found.append(store.frames("fine")[:][:, 0].tolist())
        assert found[-1] == [0, 0, first["b"], first["b"], 3, 3]
    assert found[0] == found[1]


def test_some_sites_of_a_store(filled: Path) -> None:
    store = ActivationStore(filled, ["coarse"])
    assert list(store.sites) == ["coarse"]
    assert torch.equal(store.frames("coarse")[:], ActivationStore(filled).frames("coarse")[:])
    with pytest.raises(StoreError, match="holds no site 'rough'; it holds fine, coarse"):
        ActivationStore(filled, ["coarse", "rough"])


def test_few_files_are_open_and_each_is_opened_once(tmp_path: Path) -> None:
    store = fill(tmp_path, tiny_model(), clips(OPEN + 4), SITES, shard_bytes=1)
    for site in SITES:
        for start in range(0, len(store.frames(site)), 50):
            store.frames(site)[start : start + 50]
    info = store._maps._mapped.cache_info()
    assert len(store.shards) == OPEN + 4
    assert (info.currsize, info.misses) == (OPEN, 2 * (OPEN + 4))  # one pass a site


def test_threads_and_pickled_copies_read_the_same(filled: Path) -> None:
    frames = ActivationStore(filled).frames("fine")
    whole_ND = frames[:]
    copy = pickle.loads(pickle.dumps(frames))
    starts = [start % len(frames) for start in range(0, 40_000, 77)]
    with ThreadPoolExecutor(4) as pool:
        for source in (frames, copy):
            for start, x_ND in zip(
                starts, pool.map(lambda start, s=source: s[start : start + 100], starts), strict=True
            ):
                assert torch.equal(x_ND, whole_ND[start : start + 100])
    assert len(pickle.dumps(frames)) < 2_000


# --- the index is a copy of what the shards say ---


def test_without_an_index_or_with_an_old_one_the_store_is_the_same(folder: Path) -> None:
    whole = ActivationStore(folder).frames("fine")[:]
    old = (folder / INDEX).read_bytes()
    (folder / INDEX).unlink()
    store = ActivationStore(folder)
    assert torch.equal(store.frames("fine")[:], whole)
    store.save_index()
    assert (folder / INDEX).read_bytes() == old
    write_index(folder, {name: shard for name, shard in store.shards.items() if name != shards_in(folder)[1].name})
    assert torch.equal(ActivationStore(folder).frames("fine")[:], whole)
    assert verify(folder) == []


def test_an_index_saves_the_headers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hooks.shards.read_shard", lambda path, head: pytest.fail(f"{path} was read"))
    assert len(ActivationStore(folder).sources) == 6


@pytest.mark.parametrize("text", ["", "[]", '{"shards": 1}', '{"shards": {"a.safetensors": {"size": 1}}}', "\0\xff"])
def test_a_damaged_index(folder: Path, text: str) -> None:
    (folder / INDEX).write_bytes(text.encode("latin-1"))
    with pytest.raises(StoreError, match=f"{INDEX}: damaged .*; delete it"):
        ActivationStore(folder)
    (told,) = verify(folder)
    assert "delete it" in told
    (folder / INDEX).unlink()
    ActivationStore(folder).save_index()
    for place in range(0, (folder / INDEX).stat().st_size - 1, 37):
        change(folder / INDEX, place)
        with pytest.raises(StoreError, match=f"{INDEX}: damaged"):
            ActivationStore(folder)
        change(folder / INDEX, place)
    assert len(ActivationStore(folder).sources) == 6


def test_an_index_that_says_something_else(folder: Path) -> None:
    shards = ActivationStore(folder).shards
    shards[shards_in(folder)[0].name].names[0] = "clipclap"
    write_index(folder, shards)
    (told,) = verify(folder)
    assert f"{INDEX}: says something else of {shards_in(folder)[0].name}" in told


# --- damage ---


def change(path: Path, place: int, value: bytes | None = None) -> None:
    """Flip a bit, or put bytes in its place; counted from the end if `place` is negative."""
    content = bytearray(path.read_bytes())
    place %= len(content)
    content[place : place + (len(value) if value else 1)] = value or bytes([content[place] ^ 1])
    path.write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit of a name": (lambda path: change(path, path.read_bytes().index(b"clip")), "not what it was named after"),
    "a bit of the length": (lambda path: change(path, 7), "its header is cut off"),
    "no header": (lambda path: path.write_bytes(b""), "not a shard, or damaged"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes, not"),
    "cut off in the header": (lambda path: path.write_bytes(path.read_bytes()[:100]), "its header is cut off"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "bytes, not"),
    "renamed": (lambda path: path.rename(path.with_name("0.safetensors")), "0.safetensors.*named after"),
    "not ours": (lambda path: save_file({"x": torch.zeros(3)}, path), "no '__metadata__' in its header"),
    "another model's": (
        lambda path: write_shard(
            path.parent / "b", head_of(tiny_model("large"), SITES), [("a", {s: torch.ones(1, 2) for s in SITES})]
        ).rename(path.with_name("1.safetensors")),
        "1.safetensors: a shard of another store .model 'large', not 'tiny'",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_shard_is_named(folder: Path, kind: str) -> None:
    damage, message = DAMAGE[kind]
    damage(shards_in(folder)[1])
    (folder / INDEX).unlink()
    with pytest.raises(StoreError, match=message):
        ActivationStore(folder)
    with pytest.raises(StoreError, match=message):
        fill(folder, tiny_model(), clips(6), SITES)
    assert any("safetensors" in line for line in verify(folder))
    assert len(verify(folder)) == 1


@pytest.mark.parametrize("place", [-1, -3000])
def test_a_flipped_bit_is_found_by_its_checksum(folder: Path, place: int) -> None:
    assert verify(folder) == []
    path = shards_in(folder)[2]
    change(path, place)
    assert len(ActivationStore(folder).sources) == 6
    assert verify(folder) == [f"{path}: damaged (the checksum of 'fine' is another one)"]
    change(path, place)
    digest = ActivationStore(folder).shards[path.name].checksums["coarse"]
    change(path, path.read_bytes().index(digest.encode()))
    (index, shard) = verify(folder)
    assert "says something else" in index
    assert "checksum of 'coarse' is another" in shard


def test_a_shard_that_is_gone(folder: Path) -> None:
    path = shards_in(folder)[0]
    lost = json.loads((folder / INDEX).read_text())["shards"][path.name]["names"]
    whole = ActivationStore(folder).frames("fine")[:]
    opened = ActivationStore(folder).frames("fine")
    path.unlink()
    with pytest.raises(StoreError, match=f"{path}: gone; put it back, or delete {INDEX}"):
        ActivationStore(folder)
    assert any(str(path) in line for line in verify(folder))
    with pytest.raises(StoreError, match=f"{path}: damaged or gone"):
        opened[:]
    # what the message says
    (folder / INDEX).unlink()
    assert sorted({clip.name for clip in clips(6)} - set(ActivationStore(folder).sources)) == sorted(lost)
    again = fill(folder, tiny_model(), clips(6), SITES)
    assert torch.equal(again.frames("fine")[:], whole)


def test_a_shard_that_changes_while_it_is_open(folder: Path) -> None:
    frames = ActivationStore(folder).frames("fine")
    shards_in(folder)[0].write_bytes(shards_in(folder)[0].read_bytes()[:-500])
    with pytest.raises(StoreError, match="damaged: .* bytes, not"):
        frames[:]


def test_other_files_are_nobodys_business(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    (folder / ".x.safetensors.0123abcd.partial").write_bytes(b"half")
    (folder / ".hidden.safetensors").write_bytes(b"half")
    assert verify(folder) == []
    assert len(ActivationStore(folder).sources) == 6


def test_no_store(folder: Path, tmp_path: Path) -> None:
    for opened in (ActivationStore, verify):
        with pytest.raises(StoreError, match="no activation store there"):
            opened(tmp_path)
    with pytest.raises(StoreError, match="holds no source 'clip9'"):
        ActivationStore(folder).source_frames("clip9", "fine")
    with pytest.raises(StoreError, match="holds no site 'x'"):
        ActivationStore(folder).frames("x")
    for text in ("", "[]", "{}", '{"model": "a", "sample_rate": 1, "dtype": "int8", "sites": {}}'):
        (folder / HEAD).write_text(text)
        with pytest.raises(StoreError, match=f"{HEAD}: damaged"):
            ActivationStore(folder)
    (folder / HEAD).unlink()
    with pytest.raises(StoreError, match=f"no {HEAD} there; put it back"):
        ActivationStore(folder)


def test_a_store_of_the_older_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"model": "tiny", "shards": [], "sources": []}))
    save_file({"fine": torch.zeros(3, 6)}, tmp_path / "00000.safetensors")
    for use in (lambda: ActivationStore(tmp_path), lambda: fill(tmp_path, tiny_model(), clips(1), SITES)):
        with pytest.raises(StoreError, match="fill a new folder if an older version made the store"):
            use()
    assert len(list(tmp_path.iterdir())) == 2

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from hooks.shards import HEAD, INDEX, StoreError, claim, differences, read_head, read_index, read_shard, write_index
from hooks.store_writing import write_shard

HEADS = {
    "model": "tiny",
    "sample_rate": 8000,
    "dtype": "float32",
    "sites": {"b": {"frame_rate": 50.0, "width": 3}, "a": {"frame_rate": 25.0, "width": 2}},
}


def sounds(*names: str) -> list[tuple[str, dict[str, torch.Tensor]]]:
    generator = torch.Generator().manual_seed(len(names))
    return [
        (n, {"b": torch.randn(4 + i, 3, generator=generator), "a": torch.randn(2 + i, 2, generator=generator)})
        for i, n in enumerate(names)
    ]


def test_a_shard_is_a_safetensors_file_that_says_what_is_in_it(tmp_path: Path) -> None:
    given = sounds("one", "zwei", "\udcff.wav")
    path = write_shard(tmp_path, HEADS, given)
    assert path is not None
    for site, x_ND in load_file(path).items():
        assert torch.equal(x_ND, torch.cat([activations[site] for _, activations in given]))
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["head"]) == HEADS
    shard = read_shard(path, HEADS)
    assert shard.names == json.loads(metadata["names"]) == ["one", "zwei", "\udcff.wav"]
    assert shard.frames == {"b": [4, 5, 6], "a": [2, 3, 4]}
    assert shard.size == path.stat().st_size == shard.start + 4 * (15 * 3 + 9 * 2)


def test_the_same_work_is_the_same_file(tmp_path: Path) -> None:
    first = write_shard(tmp_path, HEADS, sounds("one", "two"))
    assert first is not None
    content = first.read_bytes()
    assert write_shard(tmp_path, HEADS, sounds("one", "two")) == first
    assert first.read_bytes() == content
    assert write_shard(tmp_path, HEADS, sounds("two", "one")) != first
    assert write_shard(tmp_path, HEADS, [sounds("one", "two")[0]]) != first
    assert write_shard(tmp_path / "other", {**HEADS, "model": "large"}, sounds("one", "two")).name != first.name
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    assert write_shard(tmp_path, HEADS, []) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "large"}, "model 'tiny', not 'large'"),
        ({"sample_rate": None}, "sample rate 8000, not None"),
        ({"dtype": "float16"}, "dtype 'float32', not 'float16'"),
        ({"sites": {"a": HEADS["sites"]["a"]}}, "sites b, a, not a"),
        ({"sites": {**HEADS["sites"], "a": {"frame_rate": 25.0, "width": 5}}}, "site 'a' of width 2, not 5"),
        ({"sites": {**HEADS["sites"], "b": {"frame_rate": 5.0, "width": 3}}}, "site 'b' of frame rate 50.0, not 5.0"),
    ],
)
def test_a_folder_has_one_head(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    claim(tmp_path, HEADS)
    claim(tmp_path, dict(HEADS))
    assert read_head(tmp_path) == HEADS
    with pytest.raises(StoreError, match=f"holds {message}; choose another folder"):
        claim(tmp_path, {**HEADS, **changed})
    assert read_head(tmp_path) == HEADS
    assert [path.name for path in tmp_path.iterdir()] == [HEAD]


def test_a_width_that_is_not_known_yet_is_no_difference() -> None:
    unknown = {**HEADS, "sites": {name: {**about, "width": None} for name, about in HEADS["sites"].items()}}
    assert differences(HEADS, unknown) == ""


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": None}, "model None"),
        ({"sample_rate": "8 kHz"}, "sample rate '8 kHz'"),
        ({"dtype": ["float32"]}, "unhashable"),
        ({"sites": ["a"]}, "has no attribute 'items'"),
        ({"sites": {"a": {"width": 2}}}, "no 'frame_rate' in it"),
        ({"sites": {"a": {"width": 2, "frame_rate": float("nan")}}}, "site 'a' of frame rate nan"),
        ({"sites": {"a": {"width": None, "frame_rate": 25.0}}}, "site 'a' of width None"),
        ({"sites": {"a": {"width": 10**400, "frame_rate": 25.0}}}, "site 'a' of width 1000"),
    ],
)
def test_a_head_that_is_none(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    (tmp_path / HEAD).write_text(json.dumps({**HEADS, **changed}))
    with pytest.raises(StoreError, match=f"{HEAD}: damaged .*{message}"):
        read_head(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"names": ["one", 2]}, "no list of texts"),
        ({"names": ["one"]}, "not those of 1 sounds"),
        ({"frames": {"b": [4, 5]}}, "other sites"),
        ({"frames": {"b": [10, -1], "a": [2, 3]}}, "not those of 2 sounds"),
        ({"frames": {"b": [10**12, 5], "a": [2, 3]}}, "bytes, not 12000000000"),
        ({"checksums": {"b": "0", "a": 0}}, "other sites"),
        ({"start": 0.0}, "no numbers"),
    ],
)
def test_an_index_that_tells_of_no_shard(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    path = write_shard(tmp_path, HEADS, sounds("one", "two"))
    assert path is not None
    shard = read_shard(path, HEADS)
    write_index(tmp_path, {path.name: shard})
    assert read_index(tmp_path, HEADS) == {path.name: shard}
    write_index(tmp_path, {path.name: replace(shard, **changed)})  # its checksum is right
    with pytest.raises(StoreError, match=f"{INDEX}: damaged .*{message}"):
        read_index(tmp_path, HEADS)
    write_index(tmp_path, {f"../{path.name}": shard})
    with pytest.raises(StoreError, match="is not the name of a shard"):
        read_index(tmp_path, HEADS)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in (HEAD, INDEX, "a.safetensors"):
        os.mkfifo(tmp_path / name)
    for read in (
        lambda: read_head(tmp_path),
        lambda: read_index(tmp_path, HEADS),
        lambda: read_shard(tmp_path / "a.safetensors", HEADS),
    ):
        with pytest.raises(StoreError, match="is not a regular file"):
            read()

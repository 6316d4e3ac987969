import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from hooks.shards import HEAD, StoreError, claim, differences, read_head, read_shard
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

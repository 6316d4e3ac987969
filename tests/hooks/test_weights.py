from __future__ import annotations

import json
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hooks import ModelError
from hooks.weights import check_finite, check_folder, read_checkpoint, read_state, weight_files

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.steps": torch.tensor(7)}


class Trap:
    """What is unpickled by touching a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def refused(path: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        read_state(path)
    assert "\n" not in str(caught.value)
    assert str(path.parent) in str(caught.value)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


class TestReads:
    @pytest.mark.parametrize("name", ["model.safetensors", "x.safetensors", "model.ckpt", "x.pt", "x.pth", "x.bin"])
    @pytest.mark.parametrize("as_folder", [True, False])
    def test_a_file_or_its_folder(self, name: str, as_folder: bool, tmp_path: Path) -> None:
        save_file(STATE, tmp_path / name) if name.endswith("safetensors") else torch.save(STATE, tmp_path / name)
        read = read_state(tmp_path if as_folder else tmp_path / name)
        assert same(dict(sorted(read.items())), dict(sorted(STATE.items())))

    def test_the_format_of_old_torch(self, tmp_path: Path) -> None:
        torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
        assert same(read_state(tmp_path), STATE)

    @pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict"])
    def test_a_checkpoint_of_a_training(self, wrapper: str, tmp_path: Path) -> None:
        torch.save({"epoch": 3, wrapper: OrderedDict(STATE), "rate": 0.1}, tmp_path / "last.ckpt")
        assert same(read_state(tmp_path), STATE)
        assert read_checkpoint(tmp_path / "last.ckpt")["epoch"] == 3

    def test_eight_bit_floats_and_parameters(self, tmp_path: Path) -> None:
        small = torch.ones(2).to(torch.float8_e4m3fn)
        torch.save({"small": small, "weight": torch.nn.Parameter(torch.ones(1))}, tmp_path / "model.pt")
        read = read_state(tmp_path)
        assert read["small"].dtype == torch.float8_e4m3fn
        assert not read["weight"].requires_grad

    @pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
    def test_shards(self, suffix: str, tmp_path: Path) -> None:
        save: Any = save_file if suffix == ".safetensors" else torch.save
        files = {f"model-{n}{suffix}": {f"w{n}": torch.full((2,), float(n))} for n in (1, 2)}
        for name, state in files.items():
            save(state, tmp_path / name)
        weight_map = {key: name for name, state in files.items() for key in state}
        (tmp_path / f"model{suffix}.index.json").write_text(json.dumps({"weight_map": weight_map}))
        assert {name: float(value[0]) for name, value in read_state(tmp_path).items()} == {"w1": 1.0, "w2": 2.0}

    def test_safetensors_come_before_pickles_and_whole_files_before_shards(self, tmp_path: Path) -> None:
        for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
            torch.save(STATE, tmp_path / name)
        assert [path.name for path in weight_files(tmp_path)] == ["pytorch_model.bin"]
        for name in ("model.safetensors", "model-1.safetensors"):
            save_file(STATE, tmp_path / name)
        (tmp_path / "model.safetensors.index.json").write_text("{}")
        assert [path.name for path in weight_files(tmp_path)] == ["model.safetensors"]

    def test_one_storage_for_two_tensors(self, tmp_path: Path) -> None:
        row = torch.arange(4.0)
        torch.save({"a": row, "b": row, "c": row.view(2, 2).T}, tmp_path / "model.pt")
        assert torch.equal(read_state(tmp_path)["c"], torch.tensor([[0.0, 2.0], [1.0, 3.0]]))


class TestRefuses:
    @pytest.mark.parametrize("zipped", [True, False])
    def test_code(self, zipped: bool, tmp_path: Path) -> None:
        path = tmp_path / "model.bin"
        torch.save({"w": torch.ones(1), "x": Trap(tmp_path / "sprung")}, path, _use_new_zipfile_serialization=zipped)
        refused(path, r"holds more than tensors \(getattr\) and is not loaded.*safetensors")
        path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
        refused(path, "model.bin")
        assert not (tmp_path / "sprung").exists()

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_pickle_called_safetensors(self, zipped: bool, tmp_path: Path) -> None:
        torch.save(STATE, tmp_path / "model.safetensors", _use_new_zipfile_serialization=zipped)
        refused(tmp_path / "model.safetensors", "is called safetensors and holds something else")

    @pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "old.pt"])
    @pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.9, 0.999])
    def test_a_file_cut_short(self, name: str, kept: float, tmp_path: Path) -> None:
        path, state = tmp_path / name, {"w": torch.randn(100, 100)}
        if name == "model.safetensors":
            save_file(state, path)
        else:
            torch.save(state, path, _use_new_zipfile_serialization=name != "old.pt")
        whole = path.read_bytes()
        path.write_bytes(whole[: int(kept * len(whole))])
        refused(path, "fetch it again")

    def test_a_zip_bomb(self, tmp_path: Path) -> None:
        path = tmp_path / "model.pt"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("model/data.pkl", bytes(10_000_000))
        assert path.stat().st_size < 20_000
        refused(path, "would unpack to 10,000,000")

    def test_a_view_larger_than_its_storage(self, tmp_path: Path) -> None:
        torch.save({"w": torch.zeros(1).expand(10**12)}, tmp_path / "model.pt")
        refused(tmp_path / "model.pt", "w is not a plain tensor, or larger than what the file holds")

    def test_sparse_tensors(self, tmp_path: Path) -> None:
        huge = torch.sparse_coo_tensor(
            torch.zeros(1, 1, dtype=torch.long), torch.ones(1), (10**12,), check_invariants=False
        )
        torch.save({"w": huge}, tmp_path / "model.pt")
        refused(tmp_path / "model.pt", "w is not a plain tensor")

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    @pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
    def test_values_that_are_not_finite(self, name: str, value: float, tmp_path: Path) -> None:
        state = {"good": torch.ones(2), "bad": torch.tensor([1.0, value])}
        save_file(state, tmp_path / name) if name.endswith("safetensors") else torch.save(state, tmp_path / name)
        refused(tmp_path / name, "bad has values that are not finite")

    @pytest.mark.parametrize(
        "name",
        ["../../etc/passwd", "/etc/passwd", "sub/model.safetensors", "..\\x.safetensors", "..", "config.json", 3, ""],
    )
    def test_an_index_that_leads_elsewhere(self, name: object, tmp_path: Path) -> None:
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"w": name}}))
        with pytest.raises(ModelError, match="no file of weights beside it"):
            read_state(tmp_path)

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"w": ["x"]}}'])
    def test_a_damaged_index(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "model.safetensors.index.json").write_text(text)
        with pytest.raises(ModelError, match="no index of weights") as caught:
            read_state(tmp_path)
        assert "\n" not in str(caught.value)

    def test_a_shard_that_is_not_there(self, tmp_path: Path) -> None:
        index = tmp_path / "model.safetensors.index.json"
        index.write_text('{"weight_map": {"w": "model-1.safetensors"}}')
        with pytest.raises(ModelError, match=r"names model-1\.safetensors, which is not there; fetch"):
            read_state(tmp_path)
        index.write_text('{"weight_map": {}}')
        with pytest.raises(ModelError, match="names no files"):
            read_state(tmp_path)

    def test_what_holds_no_weights(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"there are no weights \(no \.safetensors, "):
            read_state(tmp_path)
        refused(tmp_path / "none.pt", "cannot be read")
        path = tmp_path / "model.pt"
        for content, message in (([1, 2], "holds no tensors"), ({"epoch": 3}, "holds no tensors")):
            torch.save(content, path)
            refused(path, message)
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
        refused(path, "git lfs pull")
        path.write_text("<html>not found</html>")
        refused(path, "neither a file of torch nor safetensors")

    def test_several_checkpoints(self, tmp_path: Path) -> None:
        for name in ("a.ckpt", "b.ckpt"):
            torch.save(STATE, tmp_path / name)
        with pytest.raises(ModelError, match=r"not known which of a\.ckpt, b\.ckpt is meant"):
            read_state(tmp_path)


class TestCheckFolder:
    def test_a_folder_without_weights_or_with_good_ones(self, tmp_path: Path) -> None:
        check_folder(tmp_path)
        save_file(STATE, tmp_path / "model.safetensors")
        # another library will not read these
        (tmp_path / "pytorch_model.bin").write_bytes(b"junk")
        (tmp_path / "pytorch_model.bin.index.json").write_text("junk")
        # nor these, which were not fetched
        (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"w": "model-1.safetensors"}}')
        check_folder(tmp_path)

    def test_what_another_library_would_read_is_looked_at(self, tmp_path: Path) -> None:
        torch.save(STATE, tmp_path / "diffusion_pytorch_model.bin")
        check_folder(tmp_path)
        (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"PK\x03\x04junk")
        with pytest.raises(ModelError, match="fetch it again"):
            check_folder(tmp_path)
        save_file(STATE, tmp_path / "model.safetensors")
        check_folder(tmp_path)
        (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"w": "../model.safetensors"}}')
        with pytest.raises(ModelError, match="no file of weights beside it"):
            check_folder(tmp_path)


def test_check_finite_names_the_tensor() -> None:
    check_finite({"a": torch.ones(2), "n": torch.tensor(3), "b": torch.tensor([True])}, "here")
    with pytest.raises(ModelError, match="here: b has values"):
        check_finite({"a": torch.ones(2), "b": torch.tensor([torch.nan])}, "here")

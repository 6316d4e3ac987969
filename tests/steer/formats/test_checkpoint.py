"""Files that mean harm, or are broken: refused with a reason, and nothing in them is run."""

from __future__ import annotations

import codecs
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steer.errors import SAEError
from steer.formats import checkpoint, load_sae
from steer.formats.checkpoint import read_json, read_weights

MARK = Path("ran")


class Trap:
    """Unpickled, it would leave a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (MARK.write_text, ("ran",))


def test_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"encoder.weight": Trap()}, "ae.pt")
    with pytest.raises(SAEError, match="holds more than tensors .* and is not loaded"):
        load_sae(tmp_path)
    Path("ae.pt").write_bytes(pickle.dumps({"encoder.weight": Trap()}))
    with pytest.raises(SAEError, match="is not loaded|cannot be unpickled"):
        load_sae(tmp_path)
    torch.save({"k": Trap()}, "ae.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(SAEError, match="holds more than tensors .* and is not loaded"):
        load_sae(tmp_path)
    assert not MARK.exists()


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.zeros(1000, 1000)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "ae.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry))
    assert (tmp_path / "ae.pt").stat().st_size < 20_000
    with pytest.raises(SAEError, match="would unpack to 4,0"):
        load_sae(tmp_path / "ae.pt")


def test_a_view_that_claims_more_than_there_is(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.zeros(1).expand(10_000, 10_000), "b_dec": torch.zeros(3)}, tmp_path / "ae.pt")
    with pytest.raises(SAEError, match=r"claims to be \[10000, 10000\], which the file has no room for"):
        load_sae(tmp_path)
    torch.save({"ae": {"b_dec": torch.zeros(1).expand(10_000)}}, tmp_path / "ae.pt")
    with pytest.raises(SAEError, match=r"claims to be \[10000\]"):
        load_sae(tmp_path)


def test_truncated_and_other_files(tmp_path: Path) -> None:
    path = tmp_path / "ae.pt"
    torch.save({"encoder.weight": torch.ones(9, 9)}, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SAEError, match="ae.pt: cannot be read"):
        read_weights(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(SAEError, match="ae.pt: cannot be read"):
        read_weights(path)
    torch.save([torch.ones(2)], path)
    with pytest.raises(SAEError, match="holds no dict of tensors but list"):
        read_weights(path)
    torch.save({"unheard.of": torch.ones(2)}, path)
    with pytest.raises(SAEError, match="no known format.*unheard.of"):
        load_sae(path)
    (tmp_path / "sae.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(SAEError, match="holds something else"):
        read_weights(tmp_path / "sae.safetensors")


def test_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cfg.json"
    with pytest.raises(SAEError, match="no cfg.json in"):
        read_json(path)
    for text in ("{", "[]", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(SAEError, match="cfg.json: damaged file"):
            read_json(path)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(SAEError, match="damaged"):
        read_json(path)
    monkeypatch.setattr(checkpoint, "MAX_JSON_BYTES", 4)
    with pytest.raises(SAEError, match="is larger than 0 MiB"):
        read_json(path)


def test_names_inside_a_file_lead_nowhere(tmp_path: Path) -> None:
    """No format of SAEs has an index of files, and none that lies there is followed."""
    secret, folder = tmp_path / "secret.safetensors", tmp_path / "sae"
    folder.mkdir()
    secret.write_bytes(b"secret")
    index = {"weight_map": {"W_enc": "../secret.safetensors"}, "weights": "../secret.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(index | {"trainer": index}))
    with pytest.raises(SAEError, match="no SAE in"):
        load_sae(folder)
    torch.save({"b_dec": "../secret.safetensors", "encoder.weight": "../../x"}, folder / "ae.pt")
    with pytest.raises(SAEError, match="tensors are missing: encoder.weight"):
        load_sae(folder)


class Call:
    """Unpickled, a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def hexed() -> Any:
    value: Any = b"x"
    for _ in range(40):
        value = Call(codecs.encode, value, "hex")
    return value


def laughs() -> Any:
    value: Any = ["x"]
    for _ in range(20):
        value = [value] * 10
    return value


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Call(bytearray, 2**40), "asks for memory"),
        (hexed(), "encodes bytes to more bytes"),
        (laughs(), "values within values"),
        (Call(np.float64(0).__reduce__()[0], Call(np.dtype, "V4000000000")), "cannot be read"),
    ],
)
def test_a_pickle_that_would_grow(value: Any, message: str, old: bool, tmp_path: Path) -> None:
    torch.save({"config": value}, tmp_path / "ae.pt", _use_new_zipfile_serialization=not old)
    with pytest.raises(SAEError, match=message) as error:
        load_sae(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_numbers_of_numpy_are_read(tmp_path: Path) -> None:
    torch.save({"loss": np.float32(0.5), "mark": b"bytes", "hex": 1}, tmp_path / "a.pt")
    with pytest.raises(SAEError, match="encodes bytes"):
        read_weights(tmp_path / "a.pt")
    torch.save({"loss": np.float32(0.5), "mark": b"bytes"}, tmp_path / "a.pt")
    assert read_weights(tmp_path / "a.pt") == {"loss": 0.5, "mark": b"bytes"}


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("ae.pt", "pipe"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(SAEError, match="is neither a file nor a folder"):
        load_sae(tmp_path / "pipe")
    (tmp_path / "ae.pt").unlink()
    torch.save({"b_dec": torch.ones(2)}, tmp_path / "ae.pt")
    os.mkfifo(tmp_path / "cfg.json")
    with pytest.raises(SAEError, match="no known format"):
        load_sae(tmp_path)
    with pytest.raises(SAEError, match="is not a regular file"):
        read_json(tmp_path / "cfg.json")

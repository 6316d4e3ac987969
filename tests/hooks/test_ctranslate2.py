"""Files of CTranslate2: what they hold, and each length in them that is not true."""

from __future__ import annotations

import os
import resource
import struct
from pathlib import Path

import pytest
import torch

from hooks import ModelError
from hooks.ctranslate2 import Damaged, read_model
from tests.ct2_files import HOW, packed, stored, text, variable

VARIABLES = {
    "a/weight": torch.arange(6.0).reshape(2, 3) - 2.5,
    "a/bias": torch.tensor([0.5, -2.0], dtype=torch.float16),
    "b": torch.tensor([[1.5]], dtype=torch.bfloat16),
    "heads": torch.tensor(6, dtype=torch.int16),
    "list": torch.tensor([3, -4], dtype=torch.int32),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.bin"


def test_what_it_holds_as_it_is_stored(file: Path) -> None:
    file.write_bytes(packed(VARIABLES, {"c/weight": "a/weight"}, kind="SomeSpec"))
    content = read_model(file)
    assert (content.kind, content.revision) == ("SomeSpec", 3)
    assert list(content.variables) == [*VARIABLES, "c/weight"]
    for name, value in VARIABLES.items():
        assert content.variables[name].dtype == value.dtype
        torch.testing.assert_close(content.variables[name], value, rtol=0, atol=0)
    assert content.variables["c/weight"] is content.variables["a/weight"]
    assert content.shape("a/weight") == (2, 3)
    assert content.numbers() == 6 + 2 + 1 + 1 + 2


@pytest.mark.parametrize("how", HOW)
def test_a_weight_of_any_type_as_floats(how: str, file: Path) -> None:
    weight = torch.randn(5, 4, 3)
    weight[0] *= 100
    file.write_bytes(packed(stored({"x/weight": weight}, how)))
    found = read_model(file).floats("x/weight")
    # half a step of what the row, or all of it, is divided into
    largest = weight.abs().amax((1, 2), keepdim=True)
    step = {"float32": 0.0, "float16": largest / 2**11, "bfloat16": largest / 2**8, "int16": largest.max() / 2048}
    assert found.dtype == torch.float32
    assert ((found - weight).abs() <= step.get(how, largest / 254) * 1.001).all()


def test_scales_that_do_not_fit(file: Path) -> None:
    good = stored({"x/weight": torch.randn(5, 4)}, "int8")
    for scale, message in (
        (None, "no x/weight_scale"),
        (torch.ones(4), r"x/weight_scale is \[4\]"),
        (torch.ones(5, 1), r"x/weight_scale is \[5, 1\]"),
        (torch.zeros(5), "not above 0"),
        (torch.full((5,), float("nan")), "not above 0"),
    ):
        scales = {} if scale is None else {"x/weight_scale": scale}
        file.write_bytes(packed({"x/weight": good["x/weight"], **scales}))
        with pytest.raises(Damaged, match=message):
            read_model(file).floats("x/weight")


def head(count: int) -> bytes:
    return struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, count)


def sized(sizes: tuple[int, ...], kind: int, count: int, data: bytes) -> bytes:
    return (
        head(1)
        + text("x")
        + struct.pack(f"<B{len(sizes)}I", len(sizes), *sizes)
        + struct.pack("<BI", kind, count)
        + data
    )


FOUR = (4).to_bytes(4, "little")
NONE = bytes(4)
WRONG = {
    "empty": (b"", "does not begin as a model of CTranslate2"),
    "of torch": (b"PK\x03\x04" + bytes(60), "does not begin as a model of CTranslate2"),
    "a pickle": (b"\x80\x02}q\x00.", "does not begin as a model of CTranslate2"),
    "an older version": (packed({}, version=5), "version 5, and 6 is read; convert"),
    "a newer version": (packed({}, version=7), "does not begin as a model of CTranslate2, version 6"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "a name longer than the file": (struct.pack("<IH", 6, 65535) + b"x\0", "65,535 bytes are declared and 2 are left"),
    "a name without an end": (struct.pack("<IH", 6, 2) + b"xy" + bytes(20), "not text"),
    "a name of no text": (struct.pack("<IH", 6, 3) + b"\xff\xfe\0" + bytes(20), "not text"),
    "an empty name": (struct.pack("<IH", 6, 0) + bytes(20), "not text"),
    "4 billion variables": (head(2**32 - 1) + bytes(64), "4,294,967,295 variables, for which 64 bytes are too few"),
    "200 dimensions": (head(1) + text("x") + bytes([200]) + bytes(900), "x has 200 dimensions"),
    "4 GB": (sized((2**30,), 0, 2**32 - 4, b""), r"x is \[1073741824\] of float32, and has 4,294,967,292 bytes"),
    "4 GB that fit": (sized((2**30 - 1,), 0, 2**32 - 4, b"xy"), "4,294,967,292 bytes are declared and 2 are left"),
    "2**96 numbers": (sized((2**32 - 1,) * 3, 0, 4, FOUR), "x is .* and has 4 bytes"),
    "no numbers of 2**64": (sized((2**32 - 1, 2**32 - 1, 0), 0, 0, NONE), "and has 0 bytes"),
    "fewer bytes": (sized((2,), 0, 4, FOUR + NONE), r"x is \[2\] of float32, and has 4 bytes"),
    "a type that is none": (sized((1,), 6, 4, FOUR + NONE), "unknown type 6"),
    "4 billion aliases": (head(0) + b"\xff" * 4 + bytes(8), "4,294,967,295 aliases"),
    "an alias of nothing": (packed({}, {"x": "y"}), "x is another name of y, which is not there"),
    "an alias of itself": (packed({}, {"x": "x"}), "x is another name of x, which is not there"),
    "twice": (head(2) + variable("x", torch.ones(1)) * 2 + NONE, "x is there twice"),
    "an alias twice": (packed({"x": torch.ones(1)}, {"x": "x"}), "x is there twice"),
    "more behind it": (packed({"x": torch.ones(1)}) + b"x", "1 bytes follow its end"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_one_line(what: str, file: Path) -> None:
    data, message = WRONG[what]
    file.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match=message) as caught:
        read_model(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**15  # KiB


def test_cut_anywhere(file: Path) -> None:
    data = packed(VARIABLES, {"c": "b"})
    for length in range(len(data)):
        file.write_bytes(data[:length])
        with pytest.raises(ModelError):
            read_model(file)
    file.write_bytes(data)
    read_model(file)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "zero", tmp_path / "missing", tmp_path / "a\0b"):
        with pytest.raises(ModelError, match="cannot be read"):
            read_model(path)

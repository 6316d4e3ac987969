"""`steer capture`: sounds into a store, call after call, and what `steer train` makes of it; `steer report` on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hooks import capture, open_model
from hooks.store import ActivationStore

Run = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]


@pytest.fixture
def sounds(sound: Write, tmp_path: Path) -> Path:
    for name, seconds in (("a.wav", 0.4), ("b.wav", 0.3), ("deep/c.flac", 0.4), ("d.wav", 0.2)):
        sound(f"in/{name}", seconds)
    return tmp_path / "in"


def test_what_is_captured_is_what_passes(steer: Run, sounds: Path, codec_folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    code, out, err = steer(
        "capture", sounds, "-o", store, "--model", codec_folder, "--dtype", "float32", "--shard-s", 1, "--json"
    )
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["sounds"], told["files"], told["model"]) == (4, 2, str(codec_folder))
    assert told["report"]["this_call"]["files"] == 4
    held = ActivationStore(store)
    assert held.sources == sorted(str(path) for path in sounds.rglob("*.*"))
    model = open_model(codec_folder)
    for name in held.sources:
        (captured,) = capture(model, [name], ["latent"])
        torch.testing.assert_close(held.source_frames(name, "latent"), captured.activations["latent"][0])
    assert told["frames"] == {"latent": len(held.frames("latent"))}
    # all is there
    code, out, _ = steer("capture", sounds, "-o", store, "--model", codec_folder, "--dtype", "float32")
    assert code == 0 and "nothing was left to do" in out and "4 sounds of" in out
    assert steer("capture", "-o", store, "--check")[0] == 0


def test_what_is_missing_is_done_and_what_changed_is_told(
    steer: Run, sounds: Path, sound: Write, codec_folder: Path, tmp_path: Path
) -> None:
    flags = ("-o", tmp_path / "store", "--model", codec_folder, "--shard-s", 1)
    bad = sounds / "bad.wav"
    bad.write_text("no sound")
    code, out, _ = steer("capture", sounds, *flags, "--json")
    assert code == 1
    (failure,) = json.loads(out)["report"]["failures"]
    assert failure["source"] == str(bad)
    # a new sound, and one that is another one now
    sound("in/e.wav", 0.25)
    sound("in/a.wav", 0.6)
    bad.unlink()
    code, out, _ = steer("capture", sounds, *flags, "--json")
    told = json.loads(out)
    assert (code, told["sounds"], told["report"]["done"]) == (1, 5, 4)
    (failure,) = told["report"]["failures"]
    assert "a.wav: was changed since it was captured; delete" in failure["error"]
    # what the message says helps: the file's other sounds come back too
    shard = Path(failure["error"].split("delete ")[1].split(",")[0])
    shard.unlink()
    (tmp_path / "store" / "index.json").unlink()
    code, out, _ = steer("capture", sounds, *flags, "--json")
    assert (code, json.loads(out)["sounds"]) == (0, 5)
    assert not list((tmp_path / "store").glob(".*"))


def test_two_commands_fill_one_store(steer: Run, sounds: Path, codec_folder: Path, tmp_path: Path) -> None:
    flags = ("-o", tmp_path / "store", "--model", codec_folder)
    for number, part in enumerate(("[ab].wav", "d.wav", "deep")):
        assert steer("capture", sounds / part, *flags, "--journal", tmp_path / f"j{number}")[0] == 0
    assert len(ActivationStore(tmp_path / "store").sources) == 4
    code, out, _ = steer("report", *(tmp_path / f"j{number}" for number in range(3)), "--json")
    assert (code, json.loads(out)["done"]) == (0, 4)
    page = tmp_path / "r.html"
    assert steer("report", tmp_path / "j0", "--report", page)[0] == 0
    assert "2 of 2 files done" in page.read_text()


def test_a_store_that_was_captured_is_trained_on(steer: Run, sounds: Path, codec_folder: Path, tmp_path: Path) -> None:
    assert steer("capture", sounds, "-o", tmp_path / "store", "--model", codec_folder)[0] == 0
    flags = ("--store", tmp_path / "store", "-o", tmp_path / "sae", "--k", 4, "--steps", 3, "--batch-size", 32)
    assert steer("train", *flags)[0] == 0
    assert (tmp_path / "sae" / "latent" / "cfg.json").exists()


def test_damage_and_mistakes(steer: Run, sounds: Path, codec_folder: Path, tmp_path: Path) -> None:
    flags = ("-o", tmp_path / "store", "--model", codec_folder)
    assert steer("capture", sounds, *flags)[0] == 0
    (shard,) = (tmp_path / "store").glob("*.safetensors")
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.write_bytes(damaged)
    code, out, err = steer("capture", "-o", tmp_path / "store", "--check")
    assert (code, out) == (1, "") and "checksum" in err

    def failing(*arguments: object) -> str:
        code, _, err = steer("capture", *arguments)
        assert code == 2 and err.count("\n") == 1
        return err

    assert "name sounds to capture, or pass --check" in failing("-o", tmp_path / "store")
    assert "--check" in failing(sounds, "--check", *flags)
    assert "choose another folder" in failing(sounds, *flags, "--dtype", "float32")
    assert "no site 'nowhere'" in failing(sounds, "-o", tmp_path / "new", "--model", codec_folder, "--site", "nowhere")
    assert "--report" in failing(sounds, *flags, "--report", tmp_path / "r.txt")
    assert "no activation store there" in failing("-o", tmp_path / "none", "--check")
    assert not (tmp_path / "new").exists()
    (tmp_path / "bad.wav").write_text("no sound")
    code, _, err = steer("capture", tmp_path / "bad.wav", "-o", tmp_path / "new", "--model", codec_folder)
    assert code == 1 and "bad.wav" in err

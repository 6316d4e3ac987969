"""`steer sites`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


def test_the_sites_of_a_folder(steer: Run, codec_folder: Path) -> None:
    code, out, _ = steer("sites", codec_folder, "--json")
    assert code == 0
    rows = {row["site"]: row for row in json.loads(out)}
    assert rows["latent"] == {
        "site": "latent",
        "width": 16,
        "frame rate (Hz)": 75.0,
        "module": "feature_extractor.encodec.encoder",
        "port": "output",
    }
    assert rows["decoder_input"]["port"] == "input"
    assert rows["encoder.0"]["width"] == 4
    code, out, _ = steer("sites", codec_folder)
    assert code == 0
    assert all(word in out for word in ("width", "frame rate", "decoder_output"))


def test_widths_are_measured(steer: Run, codec_folder: Path) -> None:
    code, out, _ = steer("sites", codec_folder, "--measure", "--json")
    assert code == 0
    rows = {row["site"]: row for row in json.loads(out)}
    assert rows["latent"]["width"] == 16
    # 4 filters, doubled by each of four strides
    assert rows["encoder.0"]["width"] == 4
    assert rows["encoder.12"]["width"] == 64
    assert all(row["width"] for row in rows.values())


def test_of_the_starter(steer: Run) -> None:
    code, out, _ = steer("sites", "starter:codec", "--json")
    assert code == 0
    assert {"pitch", "latent"} <= {row["site"] for row in json.loads(out)}


def test_sites_of_a_decoder_of_text(steer: Run) -> None:
    pytest.importorskip("whisper", reason="extra whisper")
    code, out, _ = steer("sites", "starter:asr", "--json", "--measure")
    assert code == 0
    assert {row["site"]: row["width"] for row in json.loads(out)}["decoder.0"] == 192


def test_a_model_that_is_not_there(steer: Run) -> None:
    code, out, err = steer("sites", "none:such")
    assert (code, out) == (2, "")
    assert err.startswith("steer: there is no model 'none:such'")
    assert err.count("\n") == 1

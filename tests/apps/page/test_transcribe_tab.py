"""The tab "Transcribe" in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("gradio", reason="extra demo")
pytest.importorskip("whisper", reason="extra whisper")
pytest.importorskip("matplotlib", reason="extra eval")

from apps.page.words import NOTHING
from tests.apps.page.visitor import Visitor
from training.sounds import make_noise

RATE = 16_000


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """Nobody speaks here, and the recogniser writes words all the same."""
    path = tmp_path / "noise.wav"
    soundfile.write(path, make_noise(4.0, RATE, np.random.default_rng(0)).waveform, RATE)
    return path


def transcripts(visitor: Visitor) -> dict[str, str]:
    """By their heads: what is written, without what is struck out."""
    script = """() => [...document.querySelectorAll('#transcripts section')].map(section => {
        const words = section.querySelector('p').cloneNode(true)
        words.querySelectorAll('del, .spoken').forEach(gone => gone.remove())
        return [section.querySelector('h3').innerText, words.textContent.trim()]
    })"""
    return dict(visitor.page.evaluate(script))


def test_false_alarms_with_and_without_the_recipe(visit: Callable[..., Visitor], noise: Path) -> None:
    visitor = visit()
    visitor.tab("Transcribe")
    visitor.upload("transcribe-sound", noise)
    assert "The edit changed what is written" in visitor.run("transcribe")
    written = transcripts(visitor)
    assert list(written) == ["Baseline", "Reconstruction only", "Edited"]
    assert written["Baseline"] and written["Baseline"] != NOTHING and written["Edited"] == NOTHING
    struck = visitor.page.locator("#transcripts section:last-of-type del").inner_text()
    assert struck.endswith(written["Baseline"])  # before it stands, for screen readers, that it was removed
    rows = visitor.page.locator("#transcripts table tbody tr")
    assert [rows.nth(row).locator("td").first.inner_text() for row in range(3)] == ["en"] * 3
    no_speech = [float(rows.nth(row).locator("td").nth(1).inner_text()) for row in (0, 2)]
    assert no_speech[0] < 0.1 < 0.8 < no_speech[1]
    picture = visitor.page.locator("#transcribe-picture img")
    assert "Most active edited features: encoder." in picture.get_attribute("alt")

    visitor.page.get_by_role("radio", name="none").check()
    assert "no edits" in visitor.run("transcribe")
    assert transcripts(visitor)["Edited"] == transcripts(visitor)["Baseline"] == written["Baseline"]


def test_edits_by_hand_and_what_is_wrong_with_them(visit: Callable[..., Visitor], noise: Path) -> None:
    visitor = visit()
    visitor.tab("Transcribe")
    assert "First choose a sound" in visitor.run("transcribe")
    visitor.upload("transcribe-sound", noise)
    visitor.page.get_by_role("radio", name="none").check()
    visitor.set("transcribe-lines", "ablate 3")
    assert "there are SAEs at encoder.0" in visitor.run("transcribe")
    visitor.set("transcribe-lines", "encoder.3: scale 4 = 0.5")
    assert "features at encoder.3." in visitor.run("transcribe")

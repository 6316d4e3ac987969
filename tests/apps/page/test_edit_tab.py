"""The tab "Edit sound" in a real browser."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("gradio", reason="extra demo")
pytest.importorskip("torchcrepe", reason="extra eval")

from apps.page.edit_run import loudness_db
from apps.samples import plucked_strings, sung_phrase
from hooks import read_clip, write_clip
from hooks.clip import audio_info
from steer.editing.editor import Editor
from steer.recipe import Recipe
from tests.apps.page.small import Open
from tests.apps.page.visitor import Visitor

Visit = Callable[..., Visitor]


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "my song (1).wav"
    write_clip(sung_phrase(), path)
    return path


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """A second, for what does not depend on the sound."""
    path = tmp_path / "short.wav"
    write_clip(sung_phrase(note_s=0.2), path)
    return path


@pytest.fixture
def minute(tmp_path: Path) -> Path:
    """Something that takes long to edit: a goal of pitch is measured again and again."""
    path = tmp_path / "minute.wav"
    clip = plucked_strings()
    soundfile.write(path, np.tile(clip.waveform[0].numpy(), 10), clip.sample_rate)
    return path


def begun(visitor: Visitor, minute: Path) -> None:
    visitor.upload("edit-sound", minute)
    visitor.set("pitch", 3)
    visitor.start("edit")
    visitor.page.wait_for_function("document.querySelector('#edit-status').innerText.includes('strengths')")


def running_files(demo: Open) -> list[Path]:
    return list(demo.folder.glob("session-*/run-*"))


def test_six_db_are_six_db_in_the_file(visit: Visit, short: Path, tmp_path: Path) -> None:
    visitor = visit()
    visitor.upload("edit-sound", short)
    visitor.set("loudness", 6)
    told = visitor.run("edit")
    found = re.search(r"Loudness\s+\+6\.00 dB\s+([+-][\d.]+) dB", visitor.text("edit-measured"))
    assert found, visitor.text("edit-measured")
    shown = float(found[1])
    assert abs(shown - 6) <= 0.5 and f"loudness {shown:+.2f} dB" in told

    file = visitor.download("download-sound", tmp_path)
    assert audio_info(file).sample_rate == audio_info(short).sample_rate
    assert loudness_db(file) - loudness_db(short) == pytest.approx(shown, abs=0.02)
    assert "STOI against the input" in visitor.text("edit-kept")

    # the recipe and the lines do the same
    recipe = Recipe.load(visitor.download("download-recipe", tmp_path))
    Editor(recipe).edit_file(short, tmp_path / "again.wav")
    assert (tmp_path / "again.wav").read_bytes() == file.read_bytes()
    visitor.page.get_by_text("The same in the shell and in Python").click()
    assert "edit_sound(" in visitor.text("edit-code") and "goals={'loudness': 6.0}" in visitor.text("edit-code")
    assert "steer edit" in visitor.text("edit-shell")

    picture = visitor.page.locator("#edit-picture img")
    picture.wait_for()
    assert f"Loudness {shown:+.2f} dB" in picture.get_attribute("alt")
    assert picture.evaluate("image => image.naturalWidth") > 600


def test_features_and_a_stretch_of_time(visit: Visit, song: Path, tmp_path: Path) -> None:
    visitor = visit()
    visitor.upload("edit-sound", song)
    visitor.set("edit-lines", "ablate 3, 17\nclamp 405 = 3  # louder than it ever is")
    visitor.set("start", 1)
    visitor.set("end", 2)
    visitor.run("edit")
    before, after = read_clip(song), read_clip(visitor.download("download-sound", tmp_path))
    moved = (after.waveform - before.waveform).abs()[0]
    rate = before.sample_rate
    assert moved[int(1.2 * rate) : int(1.8 * rate)].max() > 1e-2
    assert not moved[:rate].any() and not moved[2 * rate :].any()
    assert "outside the chosen stretch: unchanged" in visitor.text("edit-kept")


def test_a_recording_is_edited(visit: Visit) -> None:
    visitor = visit(permissions=["microphone"])
    player = visitor.page.locator("#edit-sound")
    player.get_by_label("Record audio").click()
    player.get_by_role("button", name="Record", exact=True).click()
    visitor.page.wait_for_timeout(2500)
    with visitor.page.expect_response(lambda response: "/gradio_api/upload" in response.url):
        player.get_by_role("button", name="Stop").locator("visible=true").first.click()
    player.get_by_label("Clear").wait_for()
    # the browser's beeps are at full scale: there is no room for louder ones
    visitor.set("loudness", -3)
    assert "Measured against your sound: loudness -" in visitor.run("edit")


def test_equally_loud(visit: Visit, short: Path) -> None:
    visitor = visit()
    visitor.upload("edit-sound", short)
    visitor.set("loudness", 6)
    visitor.run("edit")
    source = "document.querySelector('#player-after a[download]')?.href"
    loud = visitor.page.evaluate(source)
    visitor.page.get_by_label("Play all three equally loud").check()
    visitor.page.wait_for_function(f"{source} != '{loud}'")
    assert "-level" in visitor.page.evaluate(source)


def test_two_users_at_once_get_what_each_gets_alone(visit: Visit, short: Path, tmp_path: Path) -> None:
    wanted = [{"loudness": 6.0}, {"brightness": 25.0}]
    visitors = [visit(), visit()]
    for visitor, goals in zip(visitors, wanted, strict=True):
        visitor.upload("edit-sound", short)
        for name, value in goals.items():
            visitor.set(name, value)
    for visitor in visitors:
        visitor.start("edit")
    for number, (visitor, goals) in enumerate(zip(visitors, wanted, strict=True)):
        visitor.told("edit")
        got = visitor.download("download-sound", tmp_path)
        alone = tmp_path / f"alone-{number}.wav"
        Editor(Recipe.build({"goals": goals}), pitch=False).edit_file(short, alone)
        assert got.read_bytes() == alone.read_bytes()


def test_what_is_missing_is_said(visit: Visit, song: Path) -> None:
    visitor = visit()
    assert "First choose a sound" in visitor.run("edit")
    visitor.upload("edit-sound", song)
    assert "Nothing to change" in visitor.run("edit")
    visitor.set("edit-lines", "ablate 3\nremove 5")
    assert "line 2: 'remove 5' is not an edit" in visitor.run("edit")
    visitor.set("edit-lines", "ablate 99999")
    told = visitor.run("edit")
    assert "99999" in told and "Traceback" not in told
    visitor.set("edit-lines", "ablate 3")
    visitor.set("start", 5)
    assert "the sound lasts 3.00 s" in visitor.run("edit")
    visitor.set("start", 0)
    assert "Measured against your sound" in visitor.run("edit")
    field = visitor.page.locator("#edit-model input")
    for choice, said in {
        "encodec:24khz": "encodec:24khz needs an SAE",
        "starter:none=starter:codec/latent": "no starter model",
    }.items():
        field.fill(choice)
        field.press("Enter")
        visitor.page.wait_for_timeout(300)
        told = visitor.run("edit")
        assert said in told and "Traceback" not in told


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that are no sounds, or none for a page, and a part of what is said of each."""
    files = {name: folder / f"{name}.wav" for name in ("text", "empty", "headers", "nan", "fast")}
    files["text"].write_text("This is not a sound.\n" * 100)
    files["empty"].write_bytes(b"")
    soundfile.write(files["headers"], np.zeros(0), 24_000)
    soundfile.write(files["nan"], np.array([0.0, np.nan] * 1000), 24_000, "FLOAT")
    soundfile.write(files["fast"], np.zeros(1000), 20_000_000)
    files["long"] = folder / "long.flac"
    with soundfile.SoundFile(files["long"], "w", 8_000, 1) as file:
        for _ in range(11):
            file.write(np.zeros(60 * 8_000, dtype=np.int16))
    said = {
        "text": "not a sound file",
        "empty": "empty",
        "headers": "sample",
        "nan": "finite",
        "fast": "20000000 Hz",
        "long": "11.0 minutes",
    }
    return {name: (path, said[name]) for name, path in files.items()}


def test_bad_uploads_are_refused_with_a_sentence(
    visit: Visit, demo: Open, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    visitor = visit()
    visitor.set("loudness", 6)
    for name, (path, said) in bad_files(tmp_path).items():
        visitor.upload("edit-sound", path)
        told = visitor.run("edit")
        assert path.name in told and said in told, f"{name}: {told}"
        assert str(demo.folder) not in told
    assert "Traceback" not in capfd.readouterr().err
    assert running_files(demo) == []
    visitor.page.locator("#edit-sound").get_by_label("Clear").click()
    visitor.page.locator(".sung-phrase").first.click()
    visitor.page.locator("#edit-sound").get_by_label("Clear").wait_for()
    assert "Measured" in visitor.run("edit")
    visitor.complaints.clear()  # the browser's own player could not read the bad ones


def test_a_run_can_be_stopped(visit: Visit, demo: Open, minute: Path) -> None:
    visitor = visit()
    begun(visitor, minute)
    visitor.page.click("#edit-stop")
    assert visitor.told("edit") == "Stopped."
    assert running_files(demo) == []


def test_a_closed_tab_ends_its_run_and_takes_its_files(visit: Visit, demo: Open, minute: Path, short: Path) -> None:
    visitor = visit()
    begun(visitor, minute)
    assert running_files(demo)
    visitor.leave()
    deadline = time.monotonic() + 60  # the server looks for the tab now and then
    while list(demo.folder.glob("session-*")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not list(demo.folder.glob("session-*"))
    after = visit()
    after.upload("edit-sound", short)
    after.set("loudness", 3)
    assert "Measured" in after.run("edit")


def test_of_five_users_some_wait_and_some_are_asked_to_come_back(visit: Visit, short: Path) -> None:
    visitors = [visit() for _ in range(5)]
    for visitor in visitors:
        visitor.upload("edit-sound", short)
        visitor.set("brightness", 20)
    for visitor in visitors:
        visitor.start("edit")
    told = [visitor.told("edit") for visitor in visitors]
    done = [text for text in told if "Measured" in text or "goal was not reached" in text]
    full = [text for text in told if text == "2 runs are waiting already: please try again in a minute"]
    # two compute and two wait; pictures of those that are done wait in the same line
    assert len(done) >= 2 and len(done) + len(full) == 5

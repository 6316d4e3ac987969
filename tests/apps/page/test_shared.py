from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile

pytest.importorskip("gradio", reason="extra demo")

from apps.page.runs import Stopped
from apps.page.server import own_folder
from apps.page.settings import Settings
from apps.page.shared import Shared
from apps.page.transcribe_tab import chosen
from hooks import AudioFileError, ModelError, read_clip
from steer.errors import RecipeError
from steer.starter import models


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with own_folder() as folder:
        yield Shared.of(Settings(folder=folder, models=("hub:one",)))


def text(html: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", html))


def request(session: str) -> Any:
    return SimpleNamespace(session_hash=session)


# --- what is told of errors ---


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("{}/0f3a9c/a.wav: has no samples", "a.wav: has no samples"),
        ("{}/0f3a9c/my song (live).wav: has no samples", "my song (live).wav: has no samples"),
        ("{}/session-x1/run-y2/Größe 音.wav: exists already", "Größe 音.wav: exists already"),
        (
            "a.wav and {0}/x/b.wav would both be written to {0}/y/c.wav",
            "a.wav and b.wav would both be written to c.wav",
        ),
        ("starter:codec has no site 'x/y'", "starter:codec has no site 'x/y'"),
    ],
)
@pytest.mark.parametrize("kind", [AudioFileError, ModelError, RecipeError])
def test_our_errors_are_told_without_folders(
    shared: Shared, message: str, told: str, kind: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    html = shared.told(kind(message.format(shared.settings.folder)))
    assert 'class="wrong" role="alert"' in html
    assert text(html) == told
    assert str(shared.settings.folder) not in html and "/session-" not in html
    assert capsys.readouterr().err == ""  # a wrong file is nothing to log


def test_errors_of_real_files_name_them_alone(shared: Shared) -> None:
    folder = shared.settings.folder
    assert folder is not None
    (folder / "upload").mkdir()
    (folder / "upload" / "letter to ann.wav").write_text("dear ann")
    for path in (folder / "upload" / "letter to ann.wav", folder / "upload", folder / "none" / "a.wav"):
        with pytest.raises(AudioFileError) as raised:
            read_clip(path)
        told = text(shared.told(raised.value))
        assert told.startswith(f"{path.name}: ") and "/" not in told


def test_what_was_stopped_is_no_error(shared: Shared) -> None:
    html = shared.told(Stopped("Stopped."))
    assert 'class="note" role="status"' in html and text(html) == "Stopped."


def test_other_errors_tell_nothing_of_their_inside_but_the_log_does(
    shared: Shared, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(password: str) -> None:
        raise KeyError(f"/etc/hidden {password}")

    for error in (KeyError, ZeroDivisionError):
        try:
            broken("pa55") if error is KeyError else 1 / 0
        except Exception as raised:
            html = shared.told(raised)
        assert text(html) == f"Something went wrong on the server ({error.__name__}); its log says more."
        assert 'role="alert"' in html
    log = capsys.readouterr().err
    assert "in broken" in log and "/etc/hidden pa55" in log and "ZeroDivisionError: division by zero" in log


def test_messages_are_no_html(shared: Shared) -> None:
    html = shared.told(ModelError("<img src=x onerror=alert(1)>: no such model"))
    assert "<img" not in html and text(html) == "<img src=x onerror=alert(1)>: no such model"


# --- what is shared ---


def test_samples_are_files_of_the_page(shared: Shared) -> None:
    assert list(shared.samples) == ["Sung phrase", "Drums and bass", "Plucked strings"]
    for path in map(Path, shared.samples.values()):
        assert path.parent == shared.settings.folder / "samples"  # type: ignore[operator]
        info = soundfile.info(path)
        assert info.format == "WAV" and 1 < info.duration < 10 and read_clip(path).waveform.abs().max() > 0.1
    # a page that is built again in the same folder has them again
    assert Shared.of(shared.settings).samples == shared.samples


def test_starters_are_offered_before_what_else_was_named(shared: Shared) -> None:
    assert shared.models() == [*models(), "hub:one"]


def test_runs_are_told_in_the_bar_and_belong_to_their_session(shared: Shared) -> None:
    told: list[tuple[float, str]] = []

    def bar(share: float, desc: str) -> None:
        told.append((share, desc))

    with shared.run(request("ann"), bar) as (folder, report):  # type: ignore[arg-type]
        (folder / "a.wav").touch()
        report("editing", 0.5)
        shared.stop(request("bob"))
        report("editing", 0.75)
    assert told == [(0.5, "editing"), (0.75, "editing")]
    with pytest.raises(Stopped), shared.run(request("ann"), bar) as (_, report):  # type: ignore[arg-type]
        shared.stop(request("ann"))
        report("editing", 0.9)
    assert len(told) == 2
    shared.forget(request("bob"))
    assert (folder / "a.wav").exists()
    shared.forget(request("ann"))
    assert not folder.exists()


def test_as_many_wait_as_the_settings_say(tmp_path: Path) -> None:
    assert Shared.of(Settings(folder=tmp_path, queue=3)).runs.waiting == 3


# --- models ---


def test_public_recognisers_are_offered_where_their_weights_are(
    shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("whisper", reason="extra whisper")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert shared.downloaded() == [] and "whisper:tiny.en" not in shared.models()
    (tmp_path / "whisper").mkdir()
    (tmp_path / "whisper" / "tiny.en.pt").touch()
    assert shared.downloaded() == ["whisper:tiny.en"] and "whisper:tiny.en" in shared.models()
    what = chosen("whisper:tiny.en", "none", "", shared)
    assert what.model == "whisper:tiny.en" and sorted(what.saes) == [f"encoder.{n}" for n in range(4)]

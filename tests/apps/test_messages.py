"""What is written to stderr, and by whom: levels, warnings, and a library that prints nothing."""

from __future__ import annotations

import ast
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from apps import messages
from apps.messages import is_quiet, log, set_level, shown
from apps.progress import bars

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]


def say_all() -> None:
    log.error("x.wav: no")
    log.warning("x.wav: a note")
    library = logging.getLogger("audiosteer.steer.editing")
    library.info("opened")
    library.debug("trial")
    warnings.warn("a header is wrong", stacklevel=1)


@pytest.mark.parametrize(
    ("quiet", "verbose", "said"),
    [
        (False, 0, ["x.wav: no", "x.wav: a note"]),
        (True, 0, ["x.wav: no"]),
        (False, 1, ["x.wav: no", "x.wav: a note", "steer: opened"]),
        (False, 2, ["x.wav: no", "x.wav: a note", "steer: opened", "s steer.editing: trial"]),
        (False, 3, ["x.wav: no", "x.wav: a note", "steer: opened", "s steer.editing: trial"]),
    ],
)
@pytest.mark.filterwarnings("ignore:a header")
def test_levels(quiet: bool, verbose: int, said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = log.level, list(log.handlers), warnings.formatwarning
    with shown():
        set_level(quiet, verbose)
        assert is_quiet() == quiet
        say_all()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(said) and all(line.endswith(end) for line, end in zip(lines, said, strict=True))
    assert (log.level, list(log.handlers), warnings.formatwarning) == before


def test_warnings_are_one_line_without_a_path_unless_details_are_asked_for() -> None:
    with shown():
        assert warnings.formatwarning("no", UserWarning, "file.py", 3, None) == "steer: warning: no\n"
        set_level(False, 1)
        assert "file.py:3: UserWarning: no" in warnings.formatwarning("no", UserWarning, "file.py", 3, "")
    with warnings.catch_warnings(record=True) as seen, shown():
        set_level(True, 0)
        warnings.warn("no", stacklevel=1)
    assert not seen


@pytest.mark.parametrize("first", [(True, 0), (False, 1)])
def test_quiet_and_verbose_exclude_each_other(first: tuple[bool, int]) -> None:
    with pytest.raises(typer.BadParameter, match="exclude"):
        set_level(True, 1)
    with shown():
        set_level(*first)
        with pytest.raises(typer.BadParameter, match="exclude"):
            set_level(not first[0], 1 - first[1])


def test_a_record_that_cannot_be_written_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    with shown():
        log.error("%s %s", "one")


def test_no_bars_where_it_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # which rich takes for a terminal
    with shown():
        assert not bars().disable
        set_level(True, 0)
        assert bars().disable


# --- as a user meets them ---


def test_a_command_takes_them_before_and_after_its_name(steer: Run) -> None:
    for arguments in (("-v", "sites", "starter:codec"), ("sites", "starter:codec", "--verbose")):
        code, _, err = steer(*arguments)
        assert code == 0 and err.startswith("steer: opened starter:codec with ") and err.count("\n") == 1
    for arguments in (("--quiet", "sites", "starter:none"), ("sites", "starter:none", "-q")):
        code, out, err = steer(*arguments)
        assert (code, out) == (2, "") and err.startswith("steer: ") and err.count("\n") == 1
    code, _, err = steer("-q", "sites", "starter:codec", "-v")
    assert code == 2 and "exclude each other" in err
    assert steer("sites", "starter:codec")[2] == ""


def test_quiet_leaves_out_notes_and_keeps_errors(
    steer: Run, codec_folder: Path, sae_folder: Path, sound: Callable[..., Path]
) -> None:
    path = sound("in/a.wav", 0.4)
    data = path.read_bytes()
    path.write_bytes(data[:40] + (2**31).to_bytes(4, "little") + data[44:])  # more than there is
    (path.parent / "bad.wav").write_text("no sound")
    arguments = ("edit", path.parent, "--model", codec_folder, "--sae", sae_folder, "--clamp", "0=1")
    code, _, err = steer(*arguments, "-o", path.parents[1] / "out")
    assert code == 1 and "a.wav" in err
    code, _, err = steer(*arguments, "-o", path.parents[1] / "quiet", "--quiet")
    assert code == 1 and "a.wav" not in err


# --- the library ---


def calls_of(path: Path) -> list[str]:
    """What is called or used in a file: print, and the two streams."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "input"):
            found.append(node.func.id)
        if isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr") and isinstance(node.value, ast.Name):
            found += [f"sys.{node.attr}"] if node.value.id == "sys" else []
    return found


@pytest.mark.parametrize("package", ["hooks", "steer", "evaluation"])
def test_the_library_logs_and_never_prints(package: str) -> None:
    printing = {str(path): calls for path in (ROOT / package).rglob("*.py") if (calls := calls_of(path))}
    assert printing == {}


def test_loggers_are_below_that_of_audiosteer() -> None:
    named = [
        node.args[0]
        for package in ("hooks", "steer", "evaluation")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "getLogger"
    ]
    assert len(named) > 5 and {ast.unparse(one) for one in named} == {"f'audiosteer.{__name__}'"}
    assert messages.log.name == "audiosteer"

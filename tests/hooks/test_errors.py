from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hooks.errors import AudioSteerError, MissingExtraError, one_line, require


def test_require_gives_the_module() -> None:
    assert require("json", "all") is sys.modules["json"]


def test_a_missing_library_names_its_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'audiosteer\[dac\]'") as caught:
        require("no_such_library_at_all", "dac")
    assert isinstance(caught.value, AudioSteerError)
    assert isinstance(caught.value, ImportError)


def test_a_library_that_does_not_load_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_installed.py").write_text("raise OSError('libthing.so:\\n  cannot open')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingExtraError, match=r"does not load \(libthing.so: cannot open\)"):
        require("half_installed", "eval")


@pytest.mark.parametrize(
    ("error", "text"),
    [(ValueError("a\n  b\tc"), "a b c"), (EOFError(), "EOFError"), (ValueError("x" * 300), "x" * 200 + " ...")],
)
def test_one_line(error: Exception, text: str) -> None:
    assert one_line(error) == text

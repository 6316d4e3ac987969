from __future__ import annotations

from pathlib import Path

import pytest

from steer import plain_yaml
from steer.plain_yaml import UNREADABLE, plain_values, read_yaml

MERGES = "a0: &a0 {model: x}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 10)
)


def test_yaml_and_json_are_plain_values(tmp_path: Path) -> None:
    assert plain_values("a: [1, 2.5, x]\nb: &n {c: null}\nd: *n") == {
        "a": [1, 2.5, "x"],
        "b": {"c": None},
        "d": {"c": None},
    }
    assert plain_values('{"a": [1, true, "é"]}') == {"a": [1, True, "é"]}
    assert plain_values("") is None
    path = tmp_path / "a.yaml"
    path.write_text("\ufeffa: é", encoding="utf-8")
    assert read_yaml(path) == {"a": "é"}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 2_000,
        "a: [1",
        "2001-99-99",
        "!!bool x",
        "!!python/object/apply:os.system [true]",
        "a: 1\n---\nb: 2",
        "\x00",
    ],
)
def test_other_text_raises_what_is_expected(text: str) -> None:
    with pytest.raises(UNREADABLE):
        plain_values(text)


@pytest.mark.parametrize("text", [MERGES, "&a [*a]", "&a {b: *a}"])
def test_what_would_grow_is_refused_before_it_is_built(text: str) -> None:
    with pytest.raises(ValueError, match="more than 100,000 values"):
        plain_values(text)


def test_long_lists_are_refused_before_they_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_yaml, "MAX_VALUES", 1000)
    assert len(plain_values(f"[{'1,' * 999}]")) == 999
    with pytest.raises(ValueError, match="more than 1,000 values"):
        plain_values(f"[{'1,' * 1000}]")


def test_large_files_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("# " + "x" * 2**20)
    with pytest.raises(OSError, match="is larger than 1 MiB"):
        read_yaml(path)

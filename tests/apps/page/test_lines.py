from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from apps.page.lines import edits_in, python_lines, with_edit
from steer.editing.editor import Editor
from steer.errors import RecipeError
from steer.recipe import Recipe
from tests.tiny_codec import tones

# --- lines to edits ---

features = st.integers(0, 10**6)
hundredths = st.integers(0, 10**6).map(lambda number: number / 100)
values = st.floats(allow_nan=False, allow_infinity=False)
space = st.sampled_from(["", " ", "  ", "\t"])
site = st.none() | st.sampled_from(["latent", "encoder.2", "decoder.layers[3]", "a:b"])
span = st.none() | st.tuples(hundredths, hundredths)
edit = st.fixed_dictionaries({"ablate": st.lists(features, min_size=1, max_size=4)}) | st.one_of(
    *(st.fixed_dictionaries({kind: st.dictionaries(features, values, min_size=1, max_size=4)})
      for kind in ("clamp", "scale"))
)  # fmt: skip


@st.composite
def written(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A line as somebody may write it, and the edit that it says."""
    expected: dict[str, Any] = dict(draw(edit))
    ((kind, what),) = expected.items()
    if kind == "ablate":
        parts = [str(feature) for feature in what]
    else:
        parts = [f"{feature}{draw(space)}={draw(space)}{value!r}" for feature, value in what.items()]
    line = f"{draw(st.sampled_from([kind, kind.upper(), kind.title()]))} {draw(space)}"
    line += f"{draw(space)},{draw(space)}".join(parts)
    if seconds := draw(span):
        line += f" {draw(space)}during {seconds[0]:.2f}-{seconds[1]:.2f}"
        expected["during"] = [list(seconds)]
    if place := draw(site):
        line = f"{place}{draw(space)}: {line}"
        expected["site"] = place
    comment = draw(st.sampled_from(["", "# louder", "#ablate 7", "  # why: 3 # 4"]))
    return f"{draw(space)}{line}{draw(space)}{comment}", expected


@given(st.lists(written() | st.sampled_from([("", None), ("   ", None), ("# ablate 3", None)]), max_size=6))
def test_lines_say_the_edits_that_they_were_made_of(lines: list[tuple[str, dict[str, Any] | None]]) -> None:
    assert edits_in("\n".join(line for line, _ in lines)) == [expected for _, expected in lines if expected]


def test_edits_of_every_kind_are_a_recipes() -> None:
    text = "ablate 3, 17\nclamp 5 = 2.0, 6=-1 during 0.5-1.5\n\nlatent: scale 4 = 1.5  # louder\n"
    recipe = Recipe.build({"edits": edits_in(text)})
    first, second, third = recipe.edits
    assert (first.ablate, first.during, first.site) == ([3, 17], None, None)
    assert (second.clamp, second.during) == ({5: 2.0, 6: -1.0}, [(0.5, 1.5)])
    assert (third.scale, third.site) == ({4: 1.5}, "latent")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("abblate 3", "'abblate 3' is not an edit such as"),
        ("ablate", "'ablate' is not an edit such as"),
        ("3, 17", "is not an edit such as"),
        ("shift file.safetensors#warm:8", "is not an edit such as"),
        ("latent:ablate 3", "is not an edit such as"),
        ("ablate three", "ablate: 'three' is not a feature"),
        ("ablate -3", "ablate: '-3' is not a feature"),
        ("ablate 3,", "ablate: '' is not a feature"),
        ("ablate 3.5", "ablate: '3.5' is not a feature"),
        ("clamp 5", "clamp: '5' is not of the form FEATURE=NUMBER"),
        ("clamp 5 = loud", "clamp: '5 = loud' is not of the form FEATURE=NUMBER"),
        ("scale x = 1", "scale: 'x' is not a feature"),
        ("scale 4 = 1 during 3", "during: '3' is not of the form START-END in seconds"),
        ("scale 4 = 1 during 1-x", "during: '1-x' is not of the form START-END in seconds"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_by_its_number(line: str, says: str) -> None:
    with pytest.raises(RecipeError, match=rf"^line 3: .*{re.escape(says)}") as error:
        edits_in(f"ablate 3\n\n{line}  # what?\nalso wrong")
    assert "\n" not in str(error.value) and "--" not in str(error.value)


# --- one line more ---


@given(st.text("ab3, =\n", max_size=30), st.sampled_from(["ablate 3", "scale 4 = 2"]))
def test_a_line_is_added_once(text: str, line: str) -> None:
    once = with_edit(text, line)
    kept = [one for one in text.splitlines() if one.strip()]
    assert once.splitlines() == [*kept, line]
    assert with_edit(once, line) == once


def test_a_line_that_is_there_stays_where_it_is() -> None:
    text = "# mine\nablate 3\n\nscale 4 = 2"
    assert with_edit(text, "ablate 3") == text
    assert with_edit(text, "ablate 33") == "# mine\nablate 3\nscale 4 = 2\nablate 33"


# --- Python ---


def recipe_with(codec_folder: Path, sae_folder: Path, **values: Any) -> Recipe:
    return Recipe.build({"model": str(codec_folder), "saes": {"latent": str(sae_folder)}, **values})


KINDS: Mapping[str, dict[str, Any]] = {
    "goals": {"goals": {"loudness": 3}},
    "goals, residual kept, a span": {"goals": {"brightness": 10}, "residual": "keep", "during": [0.4, 1.3]},
    "features": {"edits": [{"ablate": [3, 17]}, {"clamp": {0: 0.4, 5: 2.0}}, {"scale": {4: 1.5}, "site": "latent"}]},
    "features, the codec's output alone": {"edits": [{"clamp": {0: 0.4}}], "residual": "drop"},
    "features with spans": {"edits": [{"clamp": {0: 1.0}, "during": [0.4, 1.3]}, {"ablate": [3]}], "during": [[1, 2]]},
    "goals and features": {"goals": {"loudness": -2}, "edits": [{"ablate": [1]}], "during": [[0, 0.5], [1, 1.5]]},
    "without the limiter": {"edits": [{"clamp": {0: 2.0}}], "limit": False},
}


@pytest.mark.parametrize("values", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("name", "rate", "channels"), [("a.wav", 24_000, 1), ("a.aiff", 44_100, 2)])
def test_python_writes_what_the_editor_writes(
    codec_folder: Path,
    sae_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, Any],
    name: str,
    rate: int,
    channels: int,
) -> None:
    soundfile.write(tmp_path / name, tones(1.6, rate, channels), rate)
    recipe = recipe_with(codec_folder, sae_folder, **values)
    Editor(recipe, pitch=False).edit_file(tmp_path / name, tmp_path / "editor.wav")
    monkeypatch.chdir(tmp_path)
    exec(compile(python_lines(recipe, name, "python.wav"), "lines", "exec"), {})
    assert (tmp_path / "python.wav").read_bytes() == (tmp_path / "editor.wav").read_bytes()
    before, after = (soundfile.read(tmp_path / one)[0] for one in (name, "python.wav"))
    assert np.abs(after - before).max() > 0.002  # and the edits do something


def test_python_says_what_is_not_usual() -> None:
    recipe = Recipe.build(
        {
            "model": "m",
            "saes": {"ear.0": "a", "ear.1": "b's"},
            "edits": [{"ablate": [1], "site": "ear.1"}, {"scale": {2: 3}, "site": "ear.0", "during": [[0, 1]]}],
            "residual": "ratio",
            "limit": False,
        }
    )
    assert (
        python_lines(recipe, 'a"b.wav', "c\n.wav")
        == """from steer import edit_sound

edited = edit_sound(
    'a"b.wav',
    'm',
    saes={'ear.0': 'a', 'ear.1': "b's"},
    edits=[{'ablate': [1], 'site': 'ear.1'}, {'scale': {2: 3.0}, 'site': 'ear.0', 'during': [(0.0, 1.0)]}],
    residual='ratio',
    limit=False,
)
print(edited.outcome.measured)
edited.save('c\\n.wav')
"""
    )
    starter = Recipe.build({"model": "starter:wavtokenizer", "goals": {"loudness": 6}})
    assert (
        python_lines(starter, "a.wav", "b.wav")
        == """from steer import edit_sound

edited = edit_sound(
    'a.wav',
    'starter:wavtokenizer',
    goals={'loudness': 6.0},
)
print(edited.outcome.measured)
edited.save('b.wav')
"""
    )

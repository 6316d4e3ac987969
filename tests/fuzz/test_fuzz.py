"""Thousands of malformed files, each refused by a clear error of ours or used: no crash, no hang, nothing run.

Each kind is tried in a process of its own, so that a crash is told from a failure, and its memory is its own.
AUDIOSTEER_FUZZ=20 tries twenty times as many mutants.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hooks import AudioSteerError, read_clip
from steer.recipe import Recipe
from tests.fuzz import child
from tests.fuzz.child import MAX_MEMORY
from tests.fuzz.mutate import mutated
from tests.processes import Forked

TIMES = int(os.environ.get("AUDIOSTEER_FUZZ", "1"))
KINDS = {
    # how many mutants beside those made by hand, and how many there are at least in all
    "sounds": (200, 850),
    "recipes": (80, 280),
    "saes": (80, 360),
    "files": (40, 540),
    "commands": (4, 58),
    "stores": (40, 300),
    "batches": (12, 115),
    "ct2": (80, 270),
}


@pytest.mark.parametrize("kind", KINDS)
def test_malformed(kind: str, tmp_path: Path) -> None:
    count, least = KINDS[kind]
    folder = tmp_path / kind
    log = tmp_path / "log.txt"
    code = Forked(child.main, kind, TIMES * count, folder, log=log, variables={}).wait()
    if code:
        last = (folder / "now.txt").read_text(encoding="utf-8")
        how = signal.Signals(-code).name if code < 0 else "a hang, or the test itself"
        said = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        pytest.fail(f"{kind}: {how} at {last!r}, which is in {folder / 'tried'}\n{said}")
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    print(kind, {key: value for key, value in report.items() if key != "wrong"})
    assert not report["wrong"], "\n".join(report["wrong"][:10]) + f"\nthe files are in {folder / 'wrong'}"
    assert sum(report["counts"].values()) >= least
    # damage that is never noticed, or good files that are refused, would make this test no test
    assert min(report["counts"][outcome] for outcome in ("done", "refused")) >= least // 50
    assert report["memory"] < MAX_MEMORY


class TestTheTestItself:
    def test_damage_is_the_same_for_the_same_seed(self) -> None:
        seed = bytes(range(200))
        once, again = ([mutated(seed, np.random.default_rng(n), seed[::-1]) for n in range(50)] for _ in range(2))
        assert once == again
        assert len(set(once)) > 45

    def test_what_is_wrong_is_told(self, tmp_path: Path) -> None:
        from tests.fuzz.child import CANARY, Case, run

        def error(one: BaseException) -> Any:
            def raises() -> None:
                raise one

            return raises

        (tmp_path / "tried").mkdir()
        cases = [
            Case("fine", lambda: None),
            Case("refused", error(AudioSteerError("a.wav: no sound")), "a.wav"),
            Case("of no file", error(AudioSteerError("no sound")), "a.wav"),
            Case("long", error(AudioSteerError("a\nb"))),
            Case("another library's", error(ValueError("a.wav"))),
            Case("memory", error(MemoryError())),
            Case("run", lambda: (tmp_path / CANARY).touch()),
            Case("after it", lambda: None),
        ]
        report = run(iter(cases), tmp_path)
        assert report["counts"] == Counter(done=2, refused=1, wrong=4)
        told = [line.partition(":")[0] for line in report["wrong"]]  # type: ignore[attr-defined]
        assert told == ["of no file", "long", "another library's", "memory", "run"]


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.sampled_from(["model", "saes"]), inner)
    ),
    max_leaves=12,
)
keys = st.sampled_from(
    [*Recipe.model_fields, "ablate", "clamp", "scale", "shift", "strength", "site", "loudness", "pitch"]
)


def refusal(read: Callable[[Path], object], path: Path) -> str:
    """What the error of ours says, nothing where it is read."""
    try:
        read(path)
    except AudioSteerError as error:
        return str(error)
    return ""


class TestProperties:
    @given(st.dictionaries(keys, plain, max_size=5) | plain)
    @settings(max_examples=50, deadline=None)
    def test_any_json_is_a_recipe_or_refused(self, values: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "r.json")
            path.write_text(json.dumps(values))
            told = refusal(Recipe.load, path)
            if told:
                assert str(path) in told
                assert "\n" not in told
            else:
                recipe = Recipe.load(path)
                assert Recipe.load(recipe.save(Path(folder, "again.yaml"))).to_dict() == recipe.to_dict()

    @given(st.text() | st.binary())
    @settings(max_examples=50, deadline=None)
    def test_any_text_is_no_sound_and_no_recipe_or_one(self, content: str | bytes) -> None:
        data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        with tempfile.TemporaryDirectory() as folder:
            for name, read in (("a.wav", read_clip), ("a.yaml", Recipe.load)):
                path = Path(folder, name)
                path.write_bytes(data)
                assert str(path) in refusal(read, path)

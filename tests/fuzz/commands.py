"""A sample of malformed things through `steer`, as a user meets it: one line that says which file, and a code."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np

from apps.cli import main
from tests.fuzz import recipes, saes, sounds
from tests.fuzz.child import Case, Wrong
from tests.fuzz.mutate import mutated
from tests.fuzz.places import bad_paths
from tests.fuzz.texts import mutants
from tests.fuzz.tiny import codec_folder, sae_folder


def steer(*arguments: object, named: Path | None = None, out: Path | None = None) -> int:
    """Run a command: its exit code; raises Wrong for what is no answer to a user."""
    # as in a terminal: names that are no text can be told, if not printed
    told = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
    printed = io.TextIOWrapper(io.BytesIO(), "utf-8")
    code = 0
    with redirect_stdout(printed), redirect_stderr(told):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
    told.seek(0)
    lines = told.read().strip().splitlines()
    if code not in (0, 1, 2, 3) or "Traceback" in "".join(lines):
        raise Wrong(f"exit code {code}: {lines}")
    if code == 2 and len(lines) != 1:
        raise Wrong(f"not one line: {lines}")
    if code and named is not None and shown(named) not in "".join(lines):
        raise Wrong(f"it does not say which file: {lines}")
    if out is not None:
        if code and out.exists():
            raise Wrong("an output of something that was refused")
        if list(out.parent.glob("*.partial")) + list(out.parent.glob(".*partial*")):
            raise Wrong("left behind: a part of an output")
        if out.is_file():
            out.unlink()
    return code


def shown(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()


def cases(folder: Path, count: int) -> Iterator[Case]:
    codec, sae = codec_folder(folder / "codec"), sae_folder(folder / "sae")
    means = ("--model", codec, "--sae", sae)
    out = folder / "out" / "out.wav"
    out.parent.mkdir()
    edit = ("--clamp", "0=1")

    def on_sound(path: Path) -> Iterator[Case]:
        yield Case(
            f"edit {path.name[:20]!r}", lambda: steer("edit", path, "-o", out, *means, *edit, named=path, out=out)
        )
        yield Case(f"features {path.name[:20]!r}", lambda: steer("features", path, *means, named=path))

    for name, path in bad_paths(folder / "paths", ".wav").items():
        if "\0" in str(path):
            continue  # no shell can pass it
        if name != "folder":
            yield from on_sound(path)
        yield Case(f"recipe {name}", lambda path=path: steer("edit", "a.wav", "-o", out, "--recipe", path))  # type: ignore[misc]
        yield Case(f"sae {name}", lambda path=path: steer("convert", path, "-o", folder / "new"))  # type: ignore[misc]
        yield Case(f"atlas {name}", lambda path=path: steer("features", "--atlas", path))  # type: ignore[misc]
    yield Case("transcribe", lambda: steer("transcribe", folder / "missing.wav", named=folder / "missing.wav"))
    known = sounds.seeds()
    names = [name for name in known if name.split("/")[0] in sounds.ENDINGS]
    good = folder / "good.wav"
    good.write_bytes(known["WAV/PCM_16/1"])
    odd = folder / "a\n[b]\udcff.wav"
    odd.write_bytes(known["WAV/PCM_16/1"])
    yield Case("odd name", lambda: steer("edit", odd, "-o", out, *means, *edit, out=out))
    yield Case("odd name in JSON", lambda: steer("edit", odd, "-o", out, *means, *edit, "--json", out=out))
    trees = recipes.good(str(codec), str(sae))
    formats = saes.seeds(folder / "seeds")
    there = folder / "other"
    there.mkdir()
    recipe = folder / "recipe.yaml"
    for index in range(count):
        rng = np.random.default_rng([23, index])
        name = names[int(rng.integers(len(names)))]
        path = folder / f"mutant {index}.{sounds.ENDINGS[name.split('/')[0]]}"
        path.write_bytes(mutated(known[name], rng, known["FLAC/PCM_16/1"]))
        yield next(on_sound(path))
        path.unlink()
        recipe.write_bytes(mutants(trees, rng))
        yield Case(f"recipe {index}", lambda: steer("edit", good, "-o", out, "--recipe", recipe, "--force", out=out))
        files = dict(list(formats.values())[index % len(formats)])
        part = list(files)[int(rng.integers(len(files)))]
        files[part] = saes.damaged(part, files[part], rng, json.dumps(trees).encode())
        saes.laid(there, files)
        yield Case(f"convert {index}", lambda: steer("convert", there, "-o", folder / "new", "--force", named=there))

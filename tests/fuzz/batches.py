"""Malformed manifests and journals, through `steer edit` and `steer report`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from apps.batch.journal import line_of
from tests.fuzz.child import Case, Wrong
from tests.fuzz.commands import steer
from tests.fuzz.mutate import mutated
from tests.fuzz.places import bad_paths
from tests.fuzz.recipes import good
from tests.fuzz.sounds import wav
from tests.fuzz.texts import bombs, replaced
from tests.fuzz.tiny import codec_folder, sae_folder

MANIFESTS = {
    "no column": b"file,output\ngood.wav,a.wav\n",
    "no rows": b"path\n",
    "many cells": b"path\n" + b"," * 100_000 + b"\n",
    "long cell": b"path\n" + b"x" * 200_000 + b"\n",
    "long column": b"x" * 100_000 + b"\n",
    "column of lines": b'"a\nb"\nx\n',
    "open quotes": b'path\n"good.wav\n' * 50,
    "null": b"path\ngood\0.wav\n",
    "carriage returns": b"path\rgood.wav\rgood.wav\r",
    "twice": b"path\ngood.wav\ngood.wav\n",
    "two outputs": b"path,output\ngood.wav,a.wav\n./good.wav,a.wav\n",
    "outside": b"path,output\ngood.wav,../../a.wav\n",
    "absolute": b"path,output\ngood.wav,/a.wav\n",
    "device": b"path\n/dev/zero\n",
    "recipe that never ends": b"path,recipe\ngood.wav,/dev/zero\n",
    "no recipe": b"path,recipe\ngood.wav,none.yaml\n",
    "itself": b"path\na.csv\n",
}


def cases(folder: Path, count: int) -> Iterator[Case]:
    codec, sae = codec_folder(folder / "codec"), sae_folder(folder / "sae")
    means = ("--model", codec, "--sae", sae, "--clamp", "0=1")
    (folder / "good.wav").write_bytes(wav())
    out = folder / "out"
    table, lines = folder / "a.csv", folder / "a.jsonl"

    def edit(source: Path) -> int:
        return steer("edit", source, "-o", out, *means, "--force", "--json")

    places = {name: place for name, place in bad_paths(folder / "paths", ".csv").items() if "\0" not in str(place)}
    for name, place in places.items():
        yield Case(f"manifest {name}", lambda place=place: edit(place))  # type: ignore[misc]
    for name, data in MANIFESTS.items():
        table.write_bytes(data)
        yield Case(f"manifest {name}", lambda: edit(table))
    small = {name: data for name, data in bombs().items() if len(data) < 2**20 and not name.startswith("tag")}
    for name, data in small.items():
        lines.write_bytes(data)
        yield Case(f"rows {name}", lambda: edit(lines))
    rows = [{"path": "good.wav", "output": f"{n}.wav", "recipe": tree} for n, tree in enumerate(good("codec", "sae"))]
    for index in range(count):
        rng = np.random.default_rng([37, index])
        odd = [replaced(rows[index % len(rows)], rng), rows[0]]
        text = "\n".join(map(json.dumps, odd)).encode()
        lines.write_bytes(text if index % 3 else mutated(text, rng, text[::-1], header=len(text)))
        yield Case(f"rows {index}", lambda: edit(lines))
    yield from journals(folder, count, places)


def replaced_but(line: dict[str, Any], key: str, rng: np.random.Generator) -> dict[str, Any]:
    """The same with something odd in it, but not at this key."""
    odd = replaced({name: value for name, value in line.items() if name not in (key, "check")}, rng)
    kept = {key: line[key]} if key in line else {}
    return {**(odd if isinstance(odd, dict) else {"begun": odd}), **kept}


def journals(folder: Path, count: int, places: dict[str, Path]) -> Iterator[Case]:
    """The journal of a batch that was done: what it says is odd, or it is no file at all."""
    sounds, out = folder / "sounds", folder / "done"
    sounds.mkdir()
    for name in ("a.wav", "b.wav"):
        (sounds / name).write_bytes(wav())
    means = ("--model", folder / "codec", "--sae", folder / "sae", "--clamp", "0=1")

    def again() -> int:
        told = steer("report", out, "--json"), steer("report", out)
        # what is not known to be ours is refused, or done again: never a crash, never a sound that is half
        code = steer("edit", sounds, "-o", out, *means)
        if code == 2:
            raise Wrong("a batch that cannot go on")
        return max(*told, code)

    if steer("edit", sounds, "-o", out, *means):
        raise Wrong("a good batch was refused")
    journal = out / "journal.jsonl"
    data = journal.read_bytes()
    whole = [json.loads(line) for line in data.splitlines()]
    yield Case("good journal", again)
    for index in range(count):
        rng = np.random.default_rng([41, index])
        odd = [replaced(line, rng) for line in whole]
        text = "".join(json.dumps(line) + "\n" for line in odd).encode()
        # with a checksum that is right: what a task measured is taken as it stands then
        signed = b"".join(map(line_of, (replaced_but(line, "result", rng) for line in whole)))
        journal.write_bytes((data[: int(rng.integers(len(data)))], text, signed)[index % 3])
        yield Case(f"journal {index}", again)
    for name, place in places.items():
        journal.unlink()
        journal.symlink_to(place)
        yield Case(f"journal is {name}", lambda: steer("report", out))
        if name not in ("dangling", "missing", "void", "no text"):  # where one can be made
            yield Case(f"edit, journal is {name}", lambda: steer("edit", sounds, "-o", out, *means))

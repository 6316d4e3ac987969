"""Malformed control vectors, probes, atlases and codec folders, through what reads them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from evaluation.atlas import Atlas, Concept
from hooks import open_model
from steer.edits import Shift
from steer.probes import Bins, Probe, load_probes, save_probes
from steer.vectors import load_vector, load_vectors
from tests.fuzz.child import Case
from tests.fuzz.places import bad_paths
from tests.fuzz.saes import damaged, laid, traps
from tests.fuzz.texts import bombs
from tests.fuzz.tiny import D_SAE, RATE, codec_folder, sae_folder


def tiny_atlas() -> Atlas:
    density_F, mean_F, max_F = torch.rand(3, D_SAE).unbind()
    concepts = [Concept("label", "dog", 3, 4, 0.6), Concept("label", "cat", 1, 0, None)]
    return Atlas(
        "tiny",
        "tiny",
        "latent",
        100,
        ["a.wav", "b.wav"],
        concepts,
        {"k": 2},
        density_F.clone(),
        mean_F.clone(),
        max_F.clone(),
        torch.rand(D_SAE, 2),
        torch.zeros(D_SAE, 2, dtype=torch.long),
        torch.rand(D_SAE, 2),
        torch.rand(2, D_SAE),
    )


def use_vectors(path: Path) -> None:
    for name, vector in load_vectors(path).items():
        Shift(load_vector(f"{path}#{name}"), 1.0)
        f"{vector.name} {vector.unit} {vector.site}".strip()


def use_probes(path: Path) -> None:
    for probe in load_probes(path).values():
        probe.control_vector(0)
        probe.predict(torch.zeros(3, D_SAE))


def use_atlas(path: Path) -> None:
    atlas = Atlas.load(path)
    atlas.report()
    atlas.table(atlas.clearest(3))
    for concept in atlas.concepts:
        if concept.chance is not None:
            atlas.by_label(concept.name, 3)


def use_model(folder: Path) -> None:
    model = open_model(folder)
    with torch.no_grad():
        model.run(torch.zeros(1, 1, RATE // 10))  # type: ignore[attr-defined]


def readers(folder: Path) -> dict[str, tuple[Path, Callable[[Path], None]]]:
    """{file: a good one, what is done with it}."""
    vectors = sae_folder(folder / "sae") / "vectors.safetensors"
    probes = folder / "probes.safetensors"
    bins = Bins("pitch", (60.0, 61.0), "MIDI", ("C", "C#"))
    save_probes({"pitch": Probe(bins, torch.rand(2, D_SAE), torch.rand(2), torch.tensor([3, 4]), "latent")}, probes)
    atlas = tiny_atlas().save(folder / "atlas.safetensors")
    return {"vectors": (vectors, use_vectors), "probes": (probes, use_probes), "atlas": (atlas, use_atlas)}


def with_metadata(data: bytes, key: str, text: str) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = {key: text}
    new = json.dumps(header).encode()
    return len(new).to_bytes(8, "little") + new + data[8 + length :]


def cases(folder: Path, count: int) -> Iterator[Case]:
    path = folder / "one.safetensors"
    places = bad_paths(folder / "paths", ".safetensors")
    small = {name: data.decode("utf-8", "replace") for name, data in bombs().items() if len(data) < 2**20}
    for kind, (good, use) in readers(folder).items():
        data = good.read_bytes()
        path.write_bytes(data)
        yield Case(f"good {kind}", lambda use=use: use(path), str(path))  # type: ignore[misc]
        for name, place in places.items():
            yield Case(f"{kind} path {name}", lambda use=use, place=place: use(place), str(place))  # type: ignore[misc]
        for name, text in small.items():
            path.write_bytes(with_metadata(data, kind, text))
            yield Case(f"{kind} {name}", lambda use=use: use(path), str(path))  # type: ignore[misc]
        for index in range(count // 4):
            rng = np.random.default_rng([17, index])
            if index % 2:
                path.write_bytes(damaged(path.name, data, rng, path.read_bytes()))
            else:
                length = int.from_bytes(data[:8], "little")
                told = json.loads(data[8 : 8 + length])["__metadata__"][kind].encode()
                path.write_bytes(
                    with_metadata(data, kind, damaged("a.json", told, rng, b"").decode("utf-8", "replace"))
                )
            yield Case(f"{kind} {index}", lambda use=use: use(path), str(path))  # type: ignore[misc]
    yield from models(folder, count // 8)


def models(folder: Path, count: int) -> Iterator[Case]:
    """A folder like the starter's codec: each part damaged, sizes that nobody has room for, pickles in its place."""
    good = codec_folder(folder / "codec")
    files = {file.name: file.read_bytes() for file in good.iterdir()}
    there = folder / "model"
    there.mkdir()
    laid(there, files)
    yield Case("good model", lambda: use_model(there), str(there))
    about = json.loads(files["config.json"])
    for key, value in about.items():
        sizes = (10**5, 10**9) if isinstance(value, int) and not isinstance(value, bool) else ("x", [10**6] * 3)
        for size in (*sizes, 0, -1, math.nan, None):
            laid(there, {**files, "config.json": json.dumps({**about, key: size}).encode()})
            yield Case(f"model {key} = {size}", lambda: use_model(there), str(there))
    laid(there, {**files, "config.json": json.dumps({**about, "width": 10**5, "hidden": 10**5}).encode()})
    yield Case("model of 10^10 weights", lambda: use_model(there), str(there))
    for name, data in traps().items():
        laid(there, {"config.json": files["config.json"], "model.pt": data})
        yield Case(f"model {name}", lambda: use_model(there), str(there))
    for name, place in bad_paths(folder / "parts", "").items():
        yield Case(f"model path {name}", lambda place=place: use_model(place))  # type: ignore[misc]
        if "\0" in str(place):
            continue
        for part in files:
            laid(there, files)
            (there / part).unlink()
            (there / part).symlink_to(place)
            yield Case(f"model {part} is {name}", lambda: use_model(there), str(there))
    for index in range(count):
        rng = np.random.default_rng([19, index])
        part = list(files)[index % len(files)]
        laid(there, {**files, part: damaged(part, files[part], rng, files["config.json"])})
        yield Case(f"model {part} {index}", lambda: use_model(there), str(there))

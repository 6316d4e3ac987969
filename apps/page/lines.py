"""Edits as text: lines that people write on the page, and Python that does what a recipe does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from apps.flags import edits_of, span_of
from steer.errors import RecipeError
from steer.recipe import VECTORS, EditSpec, Recipe

KINDS = ("ablate", "clamp", "scale")


def edits_in(text: str) -> list[dict[str, Any]]:
    """Entries of a recipe's `edits` from lines such as

        ablate 3, 17
        clamp 5 = 2.0 during 0.5-1.5
        encoder.2: scale 4 = 1.5

    Empty lines and what follows a # do not count.

    Raises:
        RecipeError: a line that cannot be read, with its number.
    """
    edits = []
    for number, written in enumerate(text.splitlines(), start=1):
        line = " ".join(written.partition("#")[0].split())
        if line:
            try:
                edits.append(edit_in(line))
            except RecipeError as error:
                raise RecipeError(f"line {number}: {str(error).removeprefix('--')}") from None
    return edits


def edit_in(line: str) -> dict[str, Any]:
    """One edit, from words with single blanks between them. Raises RecipeError."""
    before, colon, behind = line.partition(": ")
    site, rest = (before.strip(), behind) if colon else ("", line)
    kind, _, rest = rest.partition(" ")
    what, during, span = rest.partition(" during ")
    if kind.lower() not in KINDS or not what:
        raise RecipeError(f"{line!r} is not an edit such as: ablate 3, 17 / clamp 5 = 2.0 / scale 4 = 1.5")
    (edit,) = edits_of(**{**dict.fromkeys((*KINDS, "shift"), ()), kind.lower(): [what]})
    return {**edit, **({"during": [span_of(span)]} if during else {}), **({"site": site} if site else {})}


def with_edit(text: str, line: str) -> str:
    """The lines with one more, unless it is there."""
    lines = text.rstrip("\n").splitlines()
    return "\n".join(lines if line in lines else [*filter(str.strip, lines), line])


def python_lines(
    recipe: Recipe, strengths: Mapping[str, float], sites: Mapping[str, str], source: str, target: str
) -> str:
    """Python that does what an `Editor` does with the recipe and the strengths that it found.

    `sites` says where each goal's vector belongs.
    """
    edits: dict[str, list[str]] = {}
    for name, strength in strengths.items():
        if strength:
            edits.setdefault(sites[name], []).append(call("Shift", f"vectors[{name!r}]", strength, recipe.during))
    for spec in recipe.edits:
        edits.setdefault(spec.site or next(iter(recipe.saes)), []).extend(calls_of(spec, spec.during or recipe.during))
    kinds = {one.partition("(")[0] for some in edits.values() for one in some}
    names = {*kinds, "Clip", "SteeredModel", "open_model", "read_clip", "write_clip"}
    saes = ", ".join(f"{site!r}: load_sae({name!r})" for site, name in recipe.saes.items())
    lines = ["from steer.formats import load_sae", "from steer.stream import round_trip", ""]
    lines.append(f"steered = SteeredModel(open_model({recipe.model!r}), {{{saes}}})")
    if "Shift" in kinds:
        names.add("load_vectors")
        lines[0] = "from steer.formats import find_folder, load_sae"
        lines.append(f"vectors = load_vectors(find_folder({next(iter(recipe.saes.values()))!r}) / {VECTORS!r})")
    lines += ["edits = {", *(f"    {site!r}: [{', '.join(some)}]," for site, some in edits.items()), "}"]
    lines += ["", f"sound = read_clip({source!r})", "heard = sound.resampled(steered.sample_rate)"]
    lines += ["with steered.edit(edits):", "    edited = round_trip(steered.model, heard.waveform)"]
    if recipe.keeps_residual:
        lines += [
            "# what the codec cannot carry stays: the sound, and what the edits change of its round trip",
            "edited -= round_trip(steered.model, heard.waveform)",
            "change = Clip(edited, heard.sample_rate).resampled(sound.sample_rate).waveform",
            "length = min(sound.waveform.shape[1], change.shape[1])  # resampling may cost a sample",
            "edited = Clip(sound.waveform[:, :length] + change[:, :length], sound.sample_rate)",
        ]
    else:
        lines.append("edited = Clip(edited, heard.sample_rate).resampled(sound.sample_rate)")
    lines.append(f"write_clip(edited, {target!r})")
    return "\n".join([f"from steer import {', '.join(sorted(names))}", *lines]) + "\n"


def calls_of(spec: EditSpec, during: Any) -> Iterator[str]:
    if spec.ablate:
        yield call("Ablate", spec.ablate, None, during)
    for kind, values in (("Clamp", spec.clamp), ("Scale", spec.scale)):
        for feature, value in (values or {}).items():
            yield call(kind, [feature], value, during)


def call(kind: str, what: Any, value: Any, during: Any) -> str:
    arguments = [what if isinstance(what, str) else repr(what)]
    if value is not None:
        arguments.append(repr(value))
    if during:
        arguments.append(f"during={[tuple(span) for span in during]!r}")
    return f"{kind}({', '.join(arguments)})"

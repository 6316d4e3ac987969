"""Edits as text: lines that people write on the page, and Python that does what a recipe does."""

from __future__ import annotations

from typing import Any

from apps.flags import edits_of, span_of
from steer.errors import RecipeError
from steer.recipe import Recipe, default_saes

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
    option: dict[str, Any] = {kind.lower(): [what]}
    (edit,) = edits_of(**option)
    return {**edit, **({"during": [span_of(span)]} if during else {}), **({"site": site} if site else {})}


def with_edit(text: str, line: str) -> str:
    """The lines with one more, unless it is there."""
    lines = text.rstrip("\n").splitlines()
    return "\n".join(lines if line in lines else [*filter(str.strip, lines), line])


def python_lines(recipe: Recipe, source: str, target: str) -> str:
    """Python that makes the same edit with `edit_sound`."""
    options: dict[str, Any] = {}
    if recipe.saes != default_saes(recipe.model):
        options["saes"] = recipe.saes
    if recipe.wanted:
        options["goals"] = recipe.wanted
    if recipe.edits:
        options["edits"] = [spec.model_dump(exclude_none=True) for spec in recipe.edits]
    if recipe.voice.active:
        options["voice"] = recipe.voice.model_dump(mode="json", exclude_none=True)
    if recipe.during:
        options["during"] = recipe.during
    if recipe.residual:
        options["residual"] = recipe.residual
    if not recipe.limit:
        options["limit"] = False
    arguments = [repr(source), repr(recipe.model), *(f"{name}={value!r}" for name, value in options.items())]
    lines = ["from steer import edit_sound", "", "edited = edit_sound(", *(f"    {one}," for one in arguments), ")"]
    lines += ["print(edited.outcome.measured)", f"edited.save({target!r})"]
    return "\n".join(lines) + "\n"

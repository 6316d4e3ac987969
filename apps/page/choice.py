"""From what people choose on the page to a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps.page.lines import edits_in
from apps.page.shared import Shared
from hooks import ModelError
from steer import starter
from steer.errors import RecipeError
from steer.formats import load_sae
from steer.recipe import Recipe, path_in


def model_values(choice: str | None, shared: Shared) -> dict[str, Any]:
    """`model` and, where the choice says `NAME=SAE` (or several with commas between), `saes`.

    Raises:
        ModelError: nothing was chosen, a model without an SAE, or what a page for others does not offer.
        RecipeError, SAEError: an SAE that cannot be read or does not say where it goes.
    """
    choice = (choice or "").strip()
    if not choice:
        raise ModelError("choose a model")
    if not shared.settings.private and choice not in shared.models():
        raise ModelError(f"{choice} is not offered here; there are {', '.join(shared.models())}")
    name, _, sources = choice.partition("=")
    if not sources.strip() and not starter.saes(name.strip()):
        raise ModelError(f"{name.strip()} needs an SAE: name it behind the model, as {name.strip()}=SAE")
    named = absolute if shared.settings.private else str
    saes = {}
    for source in map(named, filter(None, (part.strip() for part in sources.split(",")))):
        site = load_sae(source).info.site
        if not site:
            raise RecipeError(f"{source}: this SAE does not say at which site it belongs")
        saes[site] = source
    return {"model": named(name.strip()), **({"saes": saes} if saes else {})}


def absolute(source: str) -> str:
    """Files and folders by their whole path, since the recipe is taken elsewhere; other names as they are."""
    before, path, behind = path_in(source)
    return f"{before}{Path(path).absolute()}{behind}" if path and Path(path).exists() else source


def recipe_from(
    model: str | None,
    shared: Shared,
    goals: Mapping[str, float] | None = None,
    lines: str = "",
    spans: Sequence[tuple[float, float]] = (),
    residual: str | None = None,
    limit: bool = True,
    voice: Mapping[str, Any] | None = None,
) -> Recipe:
    """The recipe for what was chosen; goals of 0 are none.

    Raises:
        RecipeError: a line that cannot be read, a value that makes no sense.
        ModelError, SAEError: as `model_values`.
    """
    values = model_values(model, shared)
    wanted = {name: value for name, value in (goals or {}).items() if value}
    if wanted:
        values["goals"] = wanted
    edits = edits_in(lines)
    if edits:
        values["edits"] = edits
    if voice:
        values["voice"] = dict(voice)
    if spans:
        values["during"] = [list(span) for span in spans]
    if residual is not None:
        values["residual"] = residual
    if not limit:
        values["limit"] = False
    return Recipe.build(values, "the page")


def span_from(start: float | None, end: float | None, seconds: float) -> list[tuple[float, float]]:
    """The stretch that is edited, from `start` to `end` (0 or none: where the sound ends); nothing where it is all.

    Raises:
        RecipeError: it is empty, or begins behind the sound's end.
    """
    first, last = start or 0.0, end or max(seconds, start or 0.0)
    if not start and not end:
        return []
    if not first < seconds:
        raise RecipeError(f"the sound lasts {seconds:.2f} s, the edit would begin at {first:g} s")
    if not 0 <= first < last:
        raise RecipeError(f"from {first:g} s to {last:g} s is not a time span")
    return [(first, last)]

"""From the options of a command to what they mean: recipes, edits, spans, sites."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hooks import AudioModel, SiteError
from hooks.model import Codec
from steer.errors import RecipeError
from steer.recipe import DEFAULT_MODEL, Recipe, default_saes
from steer.sae_folders import saes_of

RECOGNISER = "starter:asr"
"""For commands that need one, where none is named."""

Values = dict[str, Any]


def recipe_of(
    recipe: Recipe | None = None,
    goals: Mapping[str, str | None] | None = None,
    edits: Sequence[Values] = (),
    during: Sequence[str] = (),
    residual: str | None = None,
    model: str | None = None,
    sae: str | None = None,
    site: str | None = None,
    limit: bool | None = None,
    voice: Mapping[str, str | None] | None = None,
) -> Recipe:
    """A recipe from options, on top of another one: edits are added, all else takes the place of its own.

    Raises:
        RecipeError: an option makes no sense.
        SAEError: the SAE cannot be read, or neither it nor `site` says where it goes.
    """
    values: Values = recipe.to_dict(Path()) if recipe else {}
    if model is not None and model != values.get("model", DEFAULT_MODEL):
        values["model"] = model
        values.pop("saes", None)
    if sae is not None:
        named = saes_of(sae, site)
        if not named[0].site:
            raise RecipeError(f"--sae {sae}: it does not say where it goes; pass --site")
        values["saes"] = {one.site: one.source for one in named}
        if model is None and recipe is None and named[0].model:
            values["model"] = named[0].model
    elif site is not None:
        saes = values.get("saes") or default_saes(values.get("model", DEFAULT_MODEL))
        if site not in saes and len(saes) != 1:
            there = f"{', '.join(saes)} have theirs, " if saes else ""
            raise RecipeError(f"--site {site}: {there}pass --sae for the SAE that goes there")
        values["saes"] = {site: saes.get(site) or next(iter(saes.values()))}
    wanted = {name: goal for name, goal in (goals or {}).items() if goal is not None}
    if wanted:
        values["goals"] = {**values.get("goals", {}), **wanted}
    asked = {name: value for name, value in (voice or {}).items() if value is not None}
    if asked:
        values["voice"] = {**values.get("voice", {}), **asked}
    if edits:
        values["edits"] = [*values.get("edits", []), *edits]
    if during:
        values["during"] = [span_of(text) for text in during]
    if residual is not None:
        values["residual"] = residual
    if limit is not None:
        values["limit"] = limit
    return Recipe.build(values, "options", Path.cwd())


def recogniser_recipe(recipe: Recipe | None, model: str | None, saes: Sequence[str]) -> Recipe:
    """As `recipe_of`, for a recogniser with SAEs at several sites, each of which says where it goes.

    `model` keeps a recipe's SAEs: the same weights in another library take them too. A recipe that names no model is
    for the starter's, and without a recipe and SAEs it is that with its own.

    Raises:
        RecipeError: an SAE does not say where it goes, or where another one is.
        SAEError: an SAE cannot be read.
    """
    values: Values = recipe.to_dict(Path()) if recipe else {}
    name = model or values.get("model")
    if saes:
        found: dict[str, str] = {}
        for source in saes:
            for one in saes_of(source):
                if not one.site:
                    raise RecipeError(f"--sae {source}: it does not say where it goes; name it in a recipe")
                if one.site in found:
                    raise RecipeError(f"--sae {source}: {found[one.site]} is at site {one.site!r} already")
                found[one.site], name = one.source, name or one.model
        values["saes"] = found
    return Recipe.build({**values, "model": name or RECOGNISER}, "options", Path.cwd())


def anywhere(name: str) -> str:
    """A path that is there as one that holds in any folder; other names as they are."""
    return str(Path(name).absolute()) if name and os.path.exists(name) else name


def edits_of(
    ablate: Sequence[str] | None = None,
    clamp: Sequence[str] | None = None,
    scale: Sequence[str] | None = None,
    shift: Sequence[str] | None = None,
    add_direction: Sequence[str] | None = None,
    keep_norm: bool = False,
) -> list[Values]:
    """Entries of a recipe's `edits`. Raises RecipeError with the option that cannot be read."""
    edits: list[Values] = [
        {"ablate": [feature_of("--ablate", part) for part in text.split(",")]} for text in ablate or ()
    ]
    for kind, texts in (("clamp", clamp), ("scale", scale)):
        edits += [{kind: dict(assignment(f"--{kind}", part) for part in text.split(","))} for text in texts or ()]
    edits += [vector_edit("shift", text) for text in shift or ()]
    kept = {"keep_norm": True} if keep_norm else {}
    edits += [{**vector_edit("add_direction", text), **kept} for text in add_direction or ()]
    if keep_norm and not add_direction:
        raise RecipeError("--keep-norm: belongs to --add-direction")
    return edits


def goals_of(texts: Sequence[str]) -> dict[str, str]:
    """{name: amount} of the options --goal. Raises RecipeError where one cannot be read."""
    pairs = [text.partition("=") for text in texts]
    if wrong := [text for text, (_, mark, _) in zip(texts, pairs, strict=True) if not mark]:
        raise RecipeError(f"--goal: {wrong[0]!r} is not of the form NAME=AMOUNT")
    return {name.strip(): amount for name, _, amount in pairs}


def vector_edit(kind: str, text: str) -> Values:
    """FILE, FILE#NAME or either with :STRENGTH behind it."""
    path, colon, strength = text.rpartition(":")
    try:
        return {kind: path, "strength": float(strength)} if colon else {kind: text}
    except ValueError:
        return {kind: text}  # the colon belongs to the name


def feature_of(option: str, text: str) -> int:
    if not text.strip().isdecimal():
        raise RecipeError(f"{option}: {text.strip()!r} is not a feature; features are whole numbers from 0")
    return int(text)


def assignment(option: str, text: str) -> tuple[int, float]:
    feature, _, number = text.partition("=")
    try:
        return feature_of(option, feature), float(number)
    except ValueError:
        raise RecipeError(f"{option}: {text!r} is not of the form FEATURE=NUMBER, such as 5=2.0") from None


def span_of(text: str) -> list[float]:
    start, _, end = text.partition("-")
    try:
        return [float(start), float(end)]
    except ValueError:
        raise RecipeError(f"--during: {text!r} is not of the form START-END in seconds, such as 0.5-1.5") from None


def sites_in(model: AudioModel, site: str | None, layers: str | None) -> list[str]:
    """The sites that are meant.

    Raises:
        SiteError: one that the model does not have or that is given twice, or layers of a model without any.
    """
    names = [name.strip() for name in site.split(",")] if site else []
    if layers is not None:
        # a codec's stages have names like those, but rates of their own up to that of the sound
        known = (
            [] if isinstance(model, Codec) else [name for name in model.sites if re.fullmatch(r"encoder\.\d+", name)]
        )
        if not known:
            raise SiteError(f"{model.name} has no encoder layers; name sites with --site (`steer models` lists them)")
        wanted = known if layers == "all" else [f"encoder.{part.strip()}" for part in layers.split(",")]
        if unknown := [name for name in wanted if name not in known]:
            layer = unknown[0].removeprefix("encoder.")
            raise SiteError(f"--layers: {model.name} has no layer {layer!r}; its layers are 0 to {len(known) - 1}")
        names += wanted
    names = names or ["latent"]
    for name in names:
        model.site(name)
        if names.count(name) > 1:
            raise SiteError(f"site {name!r} is given twice")
    return names

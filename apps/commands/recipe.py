"""`steer recipe`: a recipe as one file that needs no SAE, and what a recipe does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apps.options import Force, Json, example, grouped

if TYPE_CHECKING:  # loads torch: `steer --help` shall not wait for it
    from steer.recipe import Recipe

app = typer.Typer(help="Pack recipes into files that need no SAE, and show them.", no_args_is_help=True)
NAMED = "YAML, JSON or a pack, or one that ships, such as starter:asr/false-alarms."
Named = Annotated[str, typer.Argument(help=NAMED, metavar="RECIPE", show_default=False)]


def pack(
    recipe: Named,
    out: Annotated[Path, typer.Option("--output", "-o", help="File to write, .safetensors.", show_default=False)],
    effect: Annotated[
        list[str] | None,
        typer.Option(help="What it was measured to do, NAME=VALUE; a number or text. Repeat for several."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model that it is for; by default the recipe's.")] = None,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Write a recipe of edits, and of its SAEs only the features that it touches, as one file for --recipe.

    SAEs of relu, jumprelu, gated and BatchTopK features without RMS norm can be packed: those of others depend on each
    other.

    Exit codes: 0 done, 2 wrong input.
    """
    from steer.recipe import Recipe
    from steer.recipe_pack import pack_recipe

    given = Recipe.load(recipe)
    if model is not None:
        given = Recipe.build({**given.to_dict(Path()), "model": model}, "options", Path.cwd())
    pack_recipe(given, out, dict(effect_of(text) for text in effect or ()), force=force)
    report(Recipe.load(out), out, as_json)


def show(recipe: Named, as_json: Json = False) -> None:
    """Show what a recipe does: its edits and gates, its features by their ids, and what a pack was measured to do.

    Exit codes: 0 done, 2 wrong input.
    """
    from steer import starter
    from steer.recipe import Recipe

    path = starter.recipe_file(recipe) if starter.is_recipe_name(recipe) else Path(recipe)
    report(Recipe.load(recipe), path, as_json)


app.command("pack", epilog=example("steer recipe pack quiet.yaml -o quiet.safetensors --effect WER=9.5"))(grouped(pack))
app.command("show", epilog=example("steer recipe show starter:asr/false-alarms"))(grouped(show))


def effect_of(text: str) -> tuple[str, Any]:
    """Raises RecipeError with the option that cannot be read."""
    from steer.errors import RecipeError

    name, equals, value = text.partition("=")
    if not (name.strip() and equals and value.strip()):
        raise RecipeError(f"--effect: {text!r} is not of the form NAME=VALUE, such as WER=4.2")
    try:
        return name.strip(), float(value)
    except ValueError:
        return name.strip(), value.strip()


def report(recipe: Recipe, path: Path, as_json: bool) -> None:
    """Print a recipe, and what is in its pack if it is one."""
    import yaml

    from apps.files import to_json
    from steer.packs import SUFFIX, load_pack

    values: dict[str, Any] = {"recipe": recipe.to_dict()}
    if path.suffix == SUFFIX:
        packed = load_pack(path)
        values |= {
            "bytes": path.stat().st_size,
            "features": {site: sae.info.extra.get("features", []) for site, sae in packed.saes.items()},
            "gates": {
                name: {"site": gate.site, "scope": gate.scope, "threshold": gate.threshold, "model": gate.probe.model}
                for name, gate in packed.gates.items()
            },
            "effect": packed.effect,
        }
    if as_json:
        print(to_json(values))
    else:
        print(yaml.safe_dump(values, sort_keys=False, default_flow_style=None, allow_unicode=True), end="")

"""`steer models`: which models there are, and the sites of one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from apps.options import Json


def models(
    name: Annotated[str | None, typer.Argument(help="A model, to see its sites.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List models that can be opened, or the sites of one."""
    from rich.console import Console

    from apps.files import to_json

    rows = known_models() if name is None else sites_of(name)
    if as_json:
        print(to_json(rows))
        return
    from rich.table import Table

    table = Table(title=name or "models")
    for head in rows[0]:
        table.add_column(head)
    for row in rows:
        table.add_row(*(cell(value) for value in row.values()))
    Console().print(table)


def cell(value: Any) -> str:
    return "–" if value is None else ", ".join(value) if isinstance(value, list) else str(value)


def known_models() -> list[dict[str, Any]]:
    """The models that ship with the package, with their SAEs, and what each family opens by name."""
    from hooks.registry import FAMILIES, family
    from steer import starter

    rows = [{"model": name, "family": "starter", "SAEs": starter.saes(name)} for name in starter.models()]
    for module in dict.fromkeys(FAMILIES.values()):
        keys = [key for key in FAMILIES if FAMILIES[key] == module]
        names = [*family(keys[0]).NAMES, *(f"a folder with a config.json of {key}" for key in keys)]
        rows += [{"model": name, "family": module.rsplit(".", 1)[-1], "SAEs": []} for name in names]
    return rows


def sites_of(name: str) -> list[dict[str, Any]]:
    """The sites of a model.

    Raises:
        ModelError: it cannot be opened.
    """
    from hooks import open_model

    return [
        {
            "site": site.name,
            "width": site.width,
            "frame rate (Hz)": site.frame_rate,
            "module": site.module or "(all)",
            "port": site.port,
        }
        for site in open_model(name).sites.values()
    ]

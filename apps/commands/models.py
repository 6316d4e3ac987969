"""`steer models`: which models there are, and whether what they need is installed here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from apps.options import Json

if TYPE_CHECKING:
    from hooks.family import Family


def models(as_json: Json = False) -> None:
    """List models that can be opened, the extra that each needs, and whether it is installed here."""
    from apps.tables import show

    rows = known_models()
    if as_json:
        show("models", rows, as_json)
        return
    # in a terminal of 80 columns
    brief = [
        {"model": row["model"], "extra": (row["needs"] or "")[len("audiosteer[") : -1], "here": row["installed"]}
        for row in rows
    ]
    show("models", brief, as_json)
    print("SAEs that ship:", ", ".join(sae for row in rows for sae in row["SAEs"]))
    print("An extra is installed by pip install 'audiosteer[EXTRA]'.")


def known_models() -> list[dict[str, Any]]:
    """The models that ship with the package, with their SAEs, and what each family opens by name."""
    from hooks.registry import FAMILIES, family_of
    from steer import starter

    rows = []
    for name in starter.models():
        config = json.loads((starter.model_folder(name.removeprefix("starter:")) / "config.json").read_text())
        family = family_of(config.get("architecture") or config["model_type"])
        rows.append({"model": name, "family": "starter", **needed(family, name), "SAEs": starter.saes(name)})
    for family in FAMILIES.all().values():
        names = [*family.names, *([f"a folder ({', '.join(family.types)})"] if family.open_folder else [])]
        rows += [
            {"model": name, "family": family.name, **needed(family, name), "SAEs": starter.saes(name)} for name in names
        ]
    return rows


def needed(family: Family | None, name: str) -> dict[str, Any]:
    """What has to be installed to open a name: `extra` is None where nothing has."""
    from importlib.util import find_spec

    needs = family.needs(name) if family else None
    if needs is None:
        return {"needs": None, "installed": True}
    library, extra = needs
    return {"needs": f"audiosteer[{extra}]", "installed": find_spec(library) is not None}

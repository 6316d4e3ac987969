"""The models that ship with the package, `starter:NAME`: folders of weights, beside which lie their SAEs."""

from __future__ import annotations

from pathlib import Path

from hooks.errors import ModelError

FOLDER = Path(__file__).parents[1] / "steer" / "starter"


def models() -> list[str]:
    """Names of the models that are here."""
    return [f"starter:{path.parent.name}" for path in sorted(FOLDER.glob("*/config.json"))]


def model_folder(name: str) -> Path:
    """Raises ModelError if there is no `starter:` model of that name."""
    if f"starter:{name}" not in models():
        raise ModelError(f"there is no starter model {name!r}; there are {', '.join(models())}")
    return FOLDER / name

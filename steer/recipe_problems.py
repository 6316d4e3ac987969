"""What is wrong with a recipe, in words that stand in the file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import ValidationError

from steer.goals import GOALS
from steer.recipe_edits import RECIPE_EDITS, EditSpec
from steer.recipe_gates import GateSpec
from steer.voice import Voice


def first_problem(error: ValidationError, keys: Iterable[str]) -> str:
    """The first thing that is wrong with a recipe of these `keys`, in one line; a misspelt key with the nearest right
    one."""
    problem = error.errors()[0]
    # pydantic names the branch of a union and a key in brackets: neither stands in the file
    place = [*problem["loc"], *problem.get("ctx", {}).get("place", ())]
    where = ".".join(str(part) for part in place if part not in ("float", "[key]") and "[" not in str(part))
    if problem["type"] == "extra_forbidden":
        inner = {
            "goals": GOALS,
            "edits": [*RECIPE_EDITS, *EditSpec.model_fields],
            "voice": Voice.model_fields,
            "when": GateSpec.model_fields,
        }
        if len(place) > 1:
            keys = inner["when" if "when" in place[:-1] else str(place[0])]
        near = difflib.get_close_matches(str(place[-1]), keys, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(keys)}"
        return f"there is no key {where!r}; {hint}"
    text = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {text}" if where else text

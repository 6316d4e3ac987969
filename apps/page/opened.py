"""`Opened`: models with their SAEs, opened once and shared by all who use the page."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from steer import SteeredModel
from steer.recipe import Recipe

KEPT = 3
"""So many stay in memory, those used last."""

Key = tuple[str, tuple[tuple[str, str], ...]]


class Opened:
    """Edits belong to the thread that makes them, so one model serves many at once; only opening takes turns."""

    def __init__(self, kept: int = KEPT, device: str = "cpu") -> None:
        self.kept, self.device = kept, device
        self._models: OrderedDict[Key, SteeredModel] = OrderedDict()
        self._table, self._opening = Lock(), Lock()

    def __call__(self, recipe: Recipe) -> SteeredModel:
        """The model and the SAEs that a recipe names.

        Raises:
            ModelError, SAEError, SiteError: one of them cannot be opened, or they do not fit.
        """
        key = (recipe.model, tuple(recipe.saes.items()))
        found = self._known(key)
        if found is None:
            with self._opening:
                found = self._known(key) or recipe.open(self.device)
                with self._table:  # before the next one may look whether it is there
                    self._models[key] = found
                    while len(self._models) > self.kept:
                        self._models.popitem(last=False)
        return found

    def _known(self, key: Key) -> SteeredModel | None:
        with self._table:
            if key in self._models:
                self._models.move_to_end(key)
            return self._models.get(key)

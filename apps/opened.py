"""`Opened`: models with their SAEs, opened once and shared by all who name them."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from steer import SteeredModel
from steer.recipe import Recipe

KEPT = 3

Key = tuple[str, tuple[tuple[str, str], ...]]


class Opened:
    """The last `kept` models that were asked for, on a device.

    Edits belong to the thread that makes them, so one model serves many at once; only opening takes turns.
    """

    def __init__(self, device: str = "cpu", kept: int = KEPT) -> None:
        self.device, self.kept = device, kept
        self._models: OrderedDict[Key, SteeredModel] = OrderedDict()
        self._table, self._opening = Lock(), Lock()

    def __call__(self, recipe: Recipe) -> SteeredModel:
        """The model and the SAEs that a recipe names.

        Raises:
            ModelError, SAEError, SiteError: one of them cannot be opened, or they do not fit.
        """
        # recipes of other folders may name other files by the same words
        saes = tuple((site, recipe.located(source)) for site, source in recipe.saes.items())
        key = (recipe.located(recipe.model), saes)
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

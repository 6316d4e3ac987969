"""Models that a worker has open: those of a few recipes, each model with its SAEs once."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from steer.recipe import Recipe
from steer.steered import SteeredModel

MODELS = 2


class Opened:
    """The last `MODELS` models that were asked for, by whatever thread, on a device."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self._models: OrderedDict[str, SteeredModel] = OrderedDict()
        self._lock = Lock()

    def get(self, recipe: Recipe) -> SteeredModel:
        """Raises as `Recipe.open`."""
        saes = {site: recipe.located(source) for site, source in recipe.saes.items()}
        key = str((recipe.located(recipe.model), saes))
        with self._lock:
            if key not in self._models:
                self._models[key] = recipe.open(self.device)
                while len(self._models) > MODELS:
                    self._models.popitem(last=False)
            self._models.move_to_end(key)
            return self._models[key]

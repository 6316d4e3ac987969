"""`Registry`: what is found by a name: it comes with AudioSteer, is added at run time, or by an installed package."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TypeVar

from hooks.errors import AudioSteerError

T = TypeVar("T")


class Registry(dict[str, T]):
    """{name: what it stands for}, in order. `registry[name] = ...` adds to it.

    Installed packages add theirs by entry points in the group `audiosteer.KIND`, KIND being `what` with underscores and
    an s, such as `audiosteer.activations`; each names the object itself. One is loaded when its name is asked for.

    Raises:
        error: `registry[name]`, where nothing is called so; it lists what there is.
    """

    def __init__(self, what: str, error: type[AudioSteerError], known: dict[str, T]) -> None:
        super().__init__(known)
        self.what, self.error = what, error
        self.group = f"audiosteer.{what.replace(' ', '_')}s"

    def __missing__(self, name: str) -> T:
        for entry in entry_points(group=self.group, name=name):
            return self.setdefault(name, entry.load())
        raise self.error(f"unknown {self.what} {name!r}; there are {', '.join(self.all())}")

    def all(self) -> Registry[T]:
        """The same with all that installed packages add, which are loaded for it; what is here keeps its name."""
        for entry in entry_points(group=self.group):
            if entry.name not in self:
                self[entry.name] = entry.load()
        return self

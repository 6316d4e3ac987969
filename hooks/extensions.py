"""`Registry`: what is found by a name: it comes with AudioSteer, is added at run time, or by an installed package."""

from __future__ import annotations

import warnings
from functools import cache
from importlib import metadata
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any, TypeVar

from hooks.errors import AudioSteerError, one_line

T = TypeVar("T")


@cache
def every_entry_point() -> Any:
    """The `EntryPoints` of all installed packages, read once in a process: it takes tens of milliseconds."""
    return metadata.entry_points()


def entry_points(group: str) -> EntryPoints:
    """Those of a group."""
    found: EntryPoints = every_entry_point().select(group=group)
    return found


class Registry(dict[str, T]):
    """{name: what it stands for}, in order. `registry[name] = ...` adds to it.

    Installed packages add theirs by entry points in the group `audiosteer.KIND`, KIND being `what` with underscores and
    an s (or `plural`), such as `audiosteer.activations`; each names the object itself. One is loaded when its name is
    asked for.

    Raises:
        error: `registry[name]`, where nothing is called so; it lists what there is.
    """

    def __init__(self, what: str, error: type[AudioSteerError], known: dict[str, T], plural: str = "") -> None:
        super().__init__(known)
        self.what, self.error = what, error
        self.group = f"audiosteer.{plural or what.replace(' ', '_') + 's'}"

    def __missing__(self, name: str) -> T:
        for entry in entry_points(self.group):
            if entry.name == name:
                try:
                    return self.setdefault(name, entry.load())
                except Exception as error:
                    raise self.error(f"{self.what} {name!r}: {self._unusable(entry, error)}") from error
        raise self.error(f"unknown {self.what} {name!r}; there are {', '.join(self.all())}")

    def all(self) -> Registry[T]:
        """The same with all that installed packages add, which are loaded for it; what is here keeps its name, and of
        one that cannot be loaded there is a warning."""
        for entry in entry_points(self.group):
            if entry.name not in self:
                try:
                    self[entry.name] = entry.load()
                except Exception as error:
                    warnings.warn(f"{self.what} {entry.name!r}: {self._unusable(entry, error)}", stacklevel=2)
        return self

    def _unusable(self, entry: EntryPoint, error: Exception) -> str:
        return f"the installed {entry.value} ({self.group}) cannot be loaded ({one_line(error)})"

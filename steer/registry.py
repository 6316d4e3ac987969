"""`Registry`: what is found by a name: it comes with AudioSteer, is added at run time, or by an installed package."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TypeVar

from hooks.errors import AudioSteerError

T = TypeVar("T")


class Registry(dict[str, T]):
    """{name: what it stands for}, in order. `registry[name] = ...` adds to it.

    A name that is not there is looked for among the entry points of installed packages, in the group
    `audiosteer.KIND` (`what` with an underscore and an s), each of which is the object itself.

    Raises:
        error: `registry[name]`, where nothing is called so; it lists what there is.
    """

    def __init__(self, what: str, error: type[AudioSteerError], known: dict[str, T]) -> None:
        super().__init__(known)
        self.what, self.error = what, error

    def __missing__(self, name: str) -> T:
        for entry in entry_points(group=f"audiosteer.{self.what.replace(' ', '_')}s", name=name):
            return self.setdefault(name, entry.load())
        raise self.error(f"unknown {self.what} {name!r}; there are {', '.join(self)}")

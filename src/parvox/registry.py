"""Named, typed choices: encoders, poolings, losses, distillation methods.

A choice is a frozen dataclass of settings that knows how to build its thing. A recipe names it; the registry finds
it, or says which names are near.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from parvox.errors import RecipeError, nearest

S = TypeVar("S")


@dataclass(frozen=True)
class Entry:
    """One registered choice: its name, its settings class and where it was published."""

    name: str
    settings: type
    source: str


class Registry(Generic[S]):
    """The choices of one kind, by name.

    Args:
        kind: What the choices are, for error messages ("encoder", "pooling", …).
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def register(self, name: str, source: str) -> Callable[[type[S]], type[S]]:
        """Class decorator that adds a settings dataclass under `name`.

        Args:
            name: As written in a recipe.
            source: The paper or code that the choice comes from.
        """

        def add(settings: type[S]) -> type[S]:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = Entry(name, settings, source)
            return settings

        return add

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            raise RecipeError(f"unknown {self.kind} {name!r}: {nearest(name, self._entries)}")
        return self._entries[name]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def name_of(self, settings: object) -> str:
        """The name under which the class of `settings` was registered."""
        for entry in self:
            if entry.settings is type(settings):
                return entry.name
        raise KeyError(f"{type(settings).__name__} is not a registered {self.kind}")

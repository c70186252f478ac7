"""Components with fields of every kind, and the smallest sweep file around the toys."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml

from metalab.components import component, number, part, static
from metalab.optimizers import Adam, Sgd
from metalab.protocols import PyTree
from tests.toys import Chaser, Targets


@component
class Fields:
    """One field of every kind of annotation."""

    rate: float = number(0.5, doc="a rate", above=0.0, at_most=1.0)
    clip: float | None = number(None, doc="a bound", above=0.0)
    steps: int = number(3, doc="a whole number that is a leaf", at_least=1)
    sizes: tuple[int, ...] = static((8,), doc="sizes", at_least=1)
    pair: tuple[float, float] = static((0.0, 1.0), doc="a pair")
    name: str = static("a", doc="a name", choices=("alpha", "beta", "a"))
    mode: Literal["fast", "exact"] = static("fast", doc="a mode")
    flag: bool = static(False, doc="a switch")
    mixed: int | tuple[int, ...] = static(1, doc="one or several")
    optimizer: Any = part(Adam(learning_rate=0.25, b1=0.5), doc="its optimiser", group="optimizer")
    other: Sgd | None = part(None, doc="a part that may be absent", group="optimizer")


@component
class Required:
    """Nothing has a default."""

    rate: float = number(doc="a rate", above=0.0)
    optimizer: Any = part(doc="its optimiser", group="optimizer")


@component
class Picky:
    """Checks itself."""

    low: float = number(0.0, doc="low end")
    high: float = number(1.0, doc="high end")

    def __post_init__(self) -> None:
        if isinstance(self.low, float) and isinstance(self.high, float) and self.low > self.high:
            raise ValueError(f"low = {self.low} is above high = {self.high}")


@component
class World:
    """A world of a certain size."""

    size: int = static(4, doc="its size", at_least=1)


@component
class WorldTargets(Targets):
    """Targets of a world."""

    size: int = static(4, doc="of the world", at_least=1)

    @property
    def environment(self) -> World:
        return World(size=self.size)


@component
class Worldly(Chaser):
    """A chaser that knows the world it lives in."""

    environment: Any = part(None, doc="the world", group="environment")


@component
class Broken(Chaser):
    """Fails when it is born."""

    def init(self, key: Any, meta: PyTree, task: Any) -> Any:
        raise KeyError("no such table")


class Plain:
    """Not a component."""


def config(**changes: Any) -> dict[str, Any]:
    """A whole sweep file as a mapping; ``changes`` replace sections."""
    return {
        "name": "toy",
        "inner": {"kind": "tests.toys:Chaser"},
        "tasks": {"kind": "tests.toys:Targets"},
        "outer": {"kind": "meta_gradient", "truncation": 2, "num_slots": 2},
        "budget": {"outer_steps": 4, "chunk": 2},
        **changes,
    }


def write(folder: Path, **changes: Any) -> Path:
    """The same, written as ``toy.yaml`` into ``folder``."""
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(config(**changes), sort_keys=False))
    return path

"""Distributions of grid worlds, as data.

The paper's worlds are Oh et al. 2020 (arXiv 2007.08794), appendix A. **Deviations**: their inner walls are
pictures only, so these have none; the stated sizes are taken as the cells that an agent can be on.
"""

from __future__ import annotations

import dataclasses

__all__ = ["PRESETS", "GridKind", "GridPreset", "ObjectRange"]

Range = tuple[float, float]
Whole = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class ObjectRange:
    """What one object is drawn from; both ends included, equal ends are a constant.

    Attributes:
        reward: uniform.
        eps_term: probability that collecting it ends the episode, log-uniform.
        eps_respawn: probability per step that it reappears, log-uniform.
    """

    reward: Range
    eps_term: Range
    eps_respawn: Range


@dataclasses.dataclass(frozen=True)
class GridKind:
    """One type of world; a world is drawn from it for each lifetime.

    Attributes:
        height: rows, uniform.
        width: columns, uniform.
        objects: the richest world's; a world with fewer has the first ones.
        num_objects: how many, uniform.
        walls: wall cells, uniform.
        max_steps: time limit, log-uniform.
    """

    height: Whole
    width: Whole
    objects: tuple[ObjectRange, ...]
    num_objects: Whole
    max_steps: Whole
    walls: Whole = (0, 0)


@dataclasses.dataclass(frozen=True)
class GridPreset:
    """A distribution of worlds.

    Attributes:
        kinds: types of world, equally likely; a bandit keeps a table for each.
        actions: the action set unless the sweep file names another.
        random_positions: objects move between and within episodes, and observations are planes.
    """

    kinds: tuple[GridKind, ...]
    actions: str = "mixed"
    random_positions: bool = False


def _fixed(count: int, reward: float, eps_term: float, eps_respawn: float) -> tuple[ObjectRange, ...]:
    """``count`` objects in the paper's notation ``count x [reward, eps_term, eps_respawn]``."""
    return (ObjectRange((reward, reward), (eps_term, eps_term), (eps_respawn, eps_respawn)),) * count


def _world(height: int, width: int, objects: tuple[ObjectRange, ...], max_steps: int) -> GridKind:
    """A type whose worlds differ in the places of things only."""
    return GridKind(
        height=(height, height),
        width=(width, width),
        objects=objects,
        num_objects=(len(objects), len(objects)),
        max_steps=(max_steps, max_steps),
    )


def _varied(size: Whole, num_objects: Whole, walls: Whole, max_steps: Whole) -> GridPreset:
    """Worlds that differ in everything; the first object is worth having."""
    eps = {"eps_term": (1e-2, 1.0), "eps_respawn": (1e-3, 1e-1)}
    others = (ObjectRange(reward=(-1.0, 1.0), **eps),) * (num_objects[1] - 1)
    kind = GridKind(
        height=size,
        width=size,
        objects=(ObjectRange(reward=(0.0, 1.0), **eps), *others),
        num_objects=num_objects,
        max_steps=max_steps,
        walls=walls,
    )
    return GridPreset((kind,), actions="compass")


_DENSE_OBJECTS = _fixed(2, 1, 0, 0.05) + _fixed(1, -1, 0.5, 0.1) + _fixed(1, -1, 0, 0.5)
_LONG_OBJECTS = _fixed(2, 1, 0, 0.01) + _fixed(2, -1, 0.5, 1)

_TABULAR = {
    "dense": _world(11, 11, _DENSE_OBJECTS, 500),
    "sparse": _world(13, 13, _fixed(1, 1, 1, 0) + _fixed(1, -1, 1, 0), 50),
    "long_horizon": _world(11, 11, _LONG_OBJECTS, 1000),
    "longer_horizon": _world(7, 9, _fixed(2, 1, 0.1, 0.01) + _fixed(5, -1, 0.8, 1), 2000),
    "long_dense": _world(11, 11, _fixed(4, 1, 0, 0.005), 2000),
}

_RANDOM = {
    "random_dense": _world(11, 11, _DENSE_OBJECTS, 500),
    "random_long_horizon": _world(11, 11, _LONG_OBJECTS, 1000),
    "random_small": _world(5, 7, _fixed(2, 1, 0, 0.05) + _fixed(2, -1, 0.5, 0.1), 500),
    "random_small_sparse": _world(5, 7, _fixed(1, 1, 1, 1) + _fixed(2, -1, 1, 1), 50),
    "random_very_dense": _world(11, 11, _fixed(1, 1, 0, 1), 2000),
}

# Sized for a CPU, with room above an actor-critic: a batch of 20 steps rarely sees two rewards, and beside
# each treasure's way stand pits that end an episode of hundreds of steps.
_SPARSE_SMALL = GridKind(
    height=(6, 7),
    width=(7, 9),
    objects=(
        *(ObjectRange(reward=(0.5, 1.0), eps_term=(0.0, 0.0), eps_respawn=(5e-3, 2e-2)),) * 2,
        *(ObjectRange(reward=(-1.0, -0.5), eps_term=(0.5, 1.0), eps_respawn=(0.5, 1.0)),) * 2,
    ),
    num_objects=(4, 4),
    max_steps=(200, 400),
    walls=(0, 8),
)

PRESETS: dict[str, GridPreset] = {
    **{name: GridPreset((kind,)) for name, kind in _TABULAR.items()},
    "paper_tabular": GridPreset(tuple(_TABULAR.values())),
    **{name: GridPreset((kind,), random_positions=True) for name, kind in _RANDOM.items()},
    "small": _varied(size=(4, 6), num_objects=(1, 3), walls=(0, 7), max_steps=(20, 100)),
    "small_unseen_sizes": _varied(size=(7, 8), num_objects=(1, 3), walls=(0, 12), max_steps=(20, 100)),
    "medium": _varied(size=(6, 8), num_objects=(2, 4), walls=(0, 10), max_steps=(100, 250)),
    "sparse_small": GridPreset((_SPARSE_SMALL,), actions="compass"),
}

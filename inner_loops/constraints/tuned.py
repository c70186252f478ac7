"""The numbers of a penalty that a meta-gradient may tune, one for each cost.

They are moved as unconstrained numbers: the logarithms of the multiplier's rate and of the penalty's scale,
which stay above 0, and the others as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

__all__ = ["TUNABLE", "Tuned", "free_numbers", "values_of"]

_POSITIVE = ("rate", "scale")


class Tuned(NamedTuple):
    """Values, each [C], or [] for all costs.

    Attributes:
        rate: of the multiplier.
        scale, offset: of the penalty.
        shift: of the limit.
    """

    rate: Array | float
    scale: Array | float = 1.0
    offset: Array | float = 0.0
    shift: Array | float = 0.0


TUNABLE = Tuned._fields


def free_numbers(values: Tuned, names: tuple[str, ...], num_costs: int) -> dict[str, Array]:
    """The unconstrained numbers [C] of the values with these names."""
    chosen = {name: jnp.broadcast_to(jnp.asarray(getattr(values, name), float), num_costs) for name in names}
    return {name: jnp.log(value) if name in _POSITIVE else value for name, value in chosen.items()}


def values_of(free: Mapping[str, Array], others: Tuned) -> Tuned:
    """What unconstrained numbers stand for; ``others`` has the values of those that are not tuned."""
    found = {name: jnp.exp(number) if name in _POSITIVE else number for name, number in free.items()}
    return others._replace(**found)

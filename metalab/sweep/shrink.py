"""Whether a pack that has empty berths is worth compiling again for fewer.

The decision must be the same in every run of a sweep, interrupted or not: lanes of a narrower program differ
in their last bits. So it does not rest on measured seconds but on an estimate from the program itself, which
the same code, versions and kind of device always give alike.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.extend.core import jaxprs_in_params

from metalab.protocols import OuterLoop

__all__ = ["pays", "step_cost"]

# Operations per second of one device, by its kind, and seconds of compilation for an equation: what LPG on
# grid worlds and chains takes on one core (4e9 to 6e9 operations/s and 0.01 s, measured beside other work).
_RATE = {"cpu": 6e9}
_FAST = 1e12
_SECONDS_AN_EQUATION = 1e-2


def pays(
    cost: tuple[float, int], lanes_left_out: int, steps_left: int, mesh_size: int, platform: str
) -> bool:
    """Whether leaving lanes out for the steps that are left saves more than a compilation costs.

    Args:
        cost: ``step_cost`` of the program.
        lanes_left_out: lanes that nobody sits in, over all devices.
        steps_left: outer steps of the point that has most to do.
        mesh_size: devices.
        platform: kind of device, as JAX calls it.
    """
    operations, equations = cost
    saved = operations * lanes_left_out * steps_left / (_RATE.get(platform, _FAST) * mesh_size)
    return saved > equations * _SECONDS_AN_EQUATION


def step_cost(outer: OuterLoop) -> tuple[float, int]:
    """Operations of one outer step of one lane, and the equations that its compilation has to read."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(lambda key: outer.init(key), key)
    closed = jax.make_jaxpr(lambda key, state: outer.step(key, state, None))(key, state)
    return _cost(closed.jaxpr)


def _cost(jaxpr: Any) -> tuple[float, int]:
    operations, equations = 0.0, 0
    for equation in jaxpr.eqns:
        equations += 1
        inner = [_cost(sub) for sub in jaxprs_in_params(equation.params)]
        repeats = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        operations += repeats * sum(cost for cost, _ in inner) if inner else _of(equation)
        equations += sum(count for _, count in inner)
    return operations, equations


def _of(equation: Any) -> float:
    """Operations of an equation without inner ones: elements it makes, times the length of a contraction."""
    size = float(sum(out.aval.size for out in equation.outvars if hasattr(out.aval, "size")))
    if equation.primitive.name != "dot_general":
        return size
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval
    for axis in contracted:
        size *= 2 * left.shape[axis]
    return size

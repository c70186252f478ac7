"""evosax's distribution-based strategies by name: what each needs, which do not fit and why.

Lange 2022, arXiv:2212.04180; as of evosax 0.3.

Every strategy here keeps one mean, which is the meta-parameters, and may be told fitness that was measured on
other tasks in every generation. Setting them up evens out what evosax leaves to its user:

* ``sigma`` is the standard deviation of a coordinate around the mean in the first generation. xNES
  multiplies two factors that both begin at it, ASEBO divides by the number of parameters, iAMaLGaM begins
  with the identity: these are scaled.
* iAMaLGaM adds a constant variance to its own; it is a hundredth of ``sigma``, squared, which keeps the
  covariance regular after it has shrunk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from evosax.algorithms.distribution_based import distribution_based_algorithms
from evosax.core.fitness_shaping import centered_rank_fitness_shaping_fn, identity_fitness_shaping_fn
from jax import Array

from metalab.protocols import PyTree

__all__ = ["NAMES", "REFUSED", "TRAITS", "Traits", "begun", "check", "make", "scaled_sigma"]

LIMIT = 500  # parameters; decomposing their matrix in every generation costs their number cubed
_MATRIX = "a matrix of parameters by parameters"
_CONCRETE = ("LM_MA_ES", "CMAAnchoredLES")  # cannot be made of traced arrays


class Traits(NamedTuple):
    """What a strategy is like.

    Attributes:
        paired: members i and i + N/2 mirror each other.
        shaped: takes its fitness in any shape; otherwise it weighs its members by rank itself.
        stepped: moves its mean by an optimiser; otherwise by recombination alone.
        scheduled: leaves sigma to us; otherwise it adapts sigma itself.
        heavy: what it keeps that grows too large with many parameters; empty: nothing.
        even: the population's size must be even.
        least: members that it needs.
    """

    paired: bool = False
    shaped: bool = False
    stepped: bool = False
    scheduled: bool = False
    heavy: str = ""
    even: bool = False
    least: int = 4


_BY_GRADIENT = Traits(paired=True, shaped=True, stepped=True, scheduled=True, even=True, least=2)

TRAITS: dict[str, Traits] = {
    "Open_ES": _BY_GRADIENT,
    "PGPE": _BY_GRADIENT._replace(scheduled=False),
    "ARS": _BY_GRADIENT,
    "ASEBO": _BY_GRADIENT._replace(heavy=_MATRIX),
    # Two members are the mean itself, and every other is compared with them: no pairs by halves.
    "ESMC": _BY_GRADIENT._replace(paired=False, least=4),
    "SNES": Traits(stepped=True, least=2),
    "xNES": Traits(stepped=True, heavy=_MATRIX),
    "DES": Traits(stepped=True),
    "SimpleES": Traits(stepped=True),
    "CR_FM_NES": Traits(paired=True, even=True),
    "CMA_ES": Traits(heavy=_MATRIX),
    "Sep_CMA_ES": Traits(),
    "MA_ES": Traits(heavy=_MATRIX),
    "LM_MA_ES": Traits(),
    "iAMaLGaM_Full": Traits(heavy=_MATRIX),
    "iAMaLGaM_Univariate": Traits(),
    "LES": Traits(),
    "EvoTF_ES": Traits(heavy="features of 100 generations of members by parameters"),
    "CMAAnchoredLES": Traits(),
}

_KEEPS_THE_LUCKIEST = (
    "keeps the luckiest member that it ever saw, and fitness is measured on other tasks in every generation; "
    "take one that keeps a mean, for example SNES"
)
_SEVERAL_MEANS = "keeps several means, and the meta-parameters are one; take {}"
_TRUNCATED = "needs lives that go on from generation to generation; take outer kind persistent_evolution"

REFUSED: dict[str, str] = {
    "GradientlessDescent": _KEEPS_THE_LUCKIEST,
    "HillClimbing": _KEEPS_THE_LUCKIEST,
    "RandomSearch": _KEEPS_THE_LUCKIEST,
    "SimulatedAnnealing": _KEEPS_THE_LUCKIEST,
    "GuidedES": "needs a surrogate gradient, which no inner loop is asked for here; take ASEBO",
    "NoiseReuseES": _TRUNCATED,
    "PersistentES": _TRUNCATED,
    "Rm_ES": "shrinks its sigma whatever the fitness is (evosax 0.3 judges success by ranks of weights); "
    "take Sep_CMA_ES or LM_MA_ES",
    "SV_CMA_ES": _SEVERAL_MEANS.format("CMA_ES"),
    "SV_Open_ES": _SEVERAL_MEANS.format("Open_ES"),
}

NAMES = (*TRAITS, *REFUSED)  # a refused name is known, so that its own reason is what a user reads


def check(name: str, population: int, share: str, shaping: str, decays: bool) -> None:
    """Refuses settings that a strategy cannot be run with.

    Args:
        name: of the strategy.
        population: N.
        share: ``pair`` or ``population``, who lives on the same tasks.
        shaping: ``own`` or the name of another shaping of fitness.
        decays: sigma follows a schedule.

    Raises:
        ValueError: the strategy is refused or unknown, or one of the settings does not fit it.
    """
    if name in REFUSED:
        raise ValueError(f"strategy: {name} {REFUSED[name]}")
    if name not in TRAITS:
        raise ValueError(f"strategy: {name!r} is unknown; choose one of {', '.join(TRAITS)}")
    traits = TRAITS[name]
    if traits.even and population % 2:
        raise ValueError(f"population: {name} needs an even number, got {population}")
    if population < traits.least:
        raise ValueError(f"population: {name} needs at least {traits.least} members, got {population}")
    wanted = []
    if not traits.paired and share == "pair":
        wanted.append("draws no antithetic pairs; set share: population")
    if not traits.shaped and shaping != "own":
        wanted.append("weighs its members by rank itself; set fitness_shaping: own")
    if not traits.paired and shaping == "pairwise_rank":
        wanted.append("has no pairs to rank; set fitness_shaping: centered_rank, raw or own")
    if decays and not traits.scheduled:
        wanted.append("adapts its sigma itself; leave out sigma_decay")
    if wanted:
        raise ValueError(f"strategy: {name} {'. It '.join(wanted)}")


def _check_size(name: str, population: int, size: int) -> None:
    """Refuses a strategy that does not fit the number of meta-parameters.

    Raises:
        ValueError: what it keeps would be too large, or its rates need more meta-parameters.
    """
    heavy = TRAITS[name].heavy
    if heavy and size > LIMIT:
        raise ValueError(
            f"strategy: {name} keeps {heavy}: {size} meta-parameters are more than the {LIMIT} that it is "
            "allowed; take Sep_CMA_ES, LM_MA_ES, SNES or Open_ES"
        )
    if name == "LM_MA_ES" and population > size:
        raise ValueError(
            f"strategy: LM_MA_ES needs at least as many meta-parameters as members, got {size} and "
            f"{population}; take CMA_ES"
        )


def make(
    name: str,
    population: int,
    template: PyTree,
    optimizer: optax.GradientTransformation,
    sigma: Array,
    shaping: str,
) -> tuple[Any, Any]:
    """The evosax strategy and its parameters, made inside the trace: sigma and rates are leaves.

    Args:
        name: one of ``TRAITS``.
        population: N.
        template: zeros like the meta-parameters.
        optimizer: moves the mean, where the strategy asks for one.
        sigma: [] standard deviation of the first generation.
        shaping: ``own`` or one of ``centered_rank``, ``pairwise_rank``, ``raw``.

    Raises:
        ValueError: the strategy does not fit the number of meta-parameters.
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(template))
    _check_size(name, population, size)
    traits, sigma = TRAITS[name], scaled_sigma(name, sigma, size)
    settings: dict[str, Any] = {"metrics_fn": lambda *_: {}}
    if traits.stepped:
        settings["optimizer"] = optimizer
    if traits.scheduled:
        settings["std_schedule"] = lambda _: sigma
    if name.startswith("iAMaLGaM"):
        settings["std_schedule"] = lambda _: 0.01 * sigma
    if shaping != "own":
        settings["fitness_shaping_fn"] = _SHAPINGS[shaping]
    with jax.ensure_compile_time_eval() if name in _CONCRETE else contextlib.nullcontext():
        strategy = distribution_based_algorithms[name](population, template, **settings)
        params = strategy.default_params
    return strategy, params.replace(std_init=sigma) if hasattr(params, "std_init") else params


def scaled_sigma(name: str, sigma: Array, size: int) -> Array:
    """[] what evosax is to be given for a population of standard deviation ``sigma`` in each coordinate."""
    if name == "xNES":
        return jnp.sqrt(sigma)
    return sigma * size**0.5 if name == "ASEBO" else sigma


def begun(name: str, search: Any, sigma: Array | float) -> Any:
    """The newborn state of a strategy with its first covariance scaled to ``sigma``."""
    return search.replace(C=sigma**2 * search.C) if name.startswith("iAMaLGaM") else search


def _pairwise_rank(population: PyTree, fitness: Array, state: PyTree, params: PyTree) -> Array:
    """[N] half the sign of each member's difference from its mirror: tasks are compared within pairs."""
    del population, state, params
    plus, minus = jnp.split(fitness, 2)
    half = 0.5 * jnp.sign(plus - minus)
    return jnp.concatenate([half, -half])


_SHAPINGS: dict[str, Callable[..., Array]] = {
    "centered_rank": centered_rank_fitness_shaping_fn,
    "pairwise_rank": _pairwise_rank,
    "raw": identity_fitness_shaping_fn,
}

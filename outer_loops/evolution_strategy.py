"""Evolution strategies over whole lifetimes: no gradient is asked of the inner loop.

A population of ``N`` meta-parameters is drawn around a mean; each member raises ``num_tasks`` learners from
birth to death; its fitness is the mean of their scores. The two members of an antithetic pair live on the
same tasks with the same random numbers, so that their difference is owed to the meta-parameters alone.

The strategies are evosax's (Lange 2022, arXiv:2212.04180; ``outer_loops.strategies`` says which); the default
is that of Salimans et al. 2017 (arXiv:1703.03864). evosax minimises, so it is given the fitness with its sign
turned.

Deviations: a member whose fitness is not finite counts as the worst finite one of its generation; weight
decay is the optimiser's, decoupled from the fitness (Salimans et al. do the same), and not evosax's, which
changes the fitness before it is ranked.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from metalab.components import component, number, part, static
from metalab.lifetimes import Slots, born, init_memory, unroll
from metalab.optimizers import Adam, OptimizerSettings
from metalab.protocols import AdaptiveTaskDistribution, InnerLoop, PyTree, TaskDistribution, Valued
from metalab.trees import select
from outer_loops import strategies
from outer_loops.refusals import require_meta_params

__all__ = ["EvolutionState", "EvolutionStrategy"]


class EvolutionState(NamedTuple):
    """Outer state.

    Attributes:
        search: the strategy's state; its mean is the meta-parameters, flattened.
        memory: of an adaptive task distribution, else ().
    """

    search: PyTree
    memory: PyTree


@component
class EvolutionStrategy:
    """Evolution strategy over whole lifetimes (OpenAI-ES, PGPE, SNES, CMA-ES and more), through evosax."""

    inner: InnerLoop = part(doc="what learns", group="inner")
    tasks: TaskDistribution = part(doc="what it lives in", group="tasks")
    strategy: str = static("Open_ES", doc="evosax strategy", choices=strategies.NAMES)
    population: int = static(64, doc="N, members of a generation", at_least=2)
    sigma: float = number(0.05, doc="standard deviation of the population around its mean", above=0.0)
    sigma_decay: float | None = number(
        None,
        doc="factor on sigma after every generation, for Open_ES, ARS, ASEBO, ESMC",
        above=0.0,
        at_most=1.0,
    )
    sigma_min: float | None = number(None, doc="where the decay of sigma ends; none: at nothing", above=0.0)
    optimizer: OptimizerSettings = part(
        Adam(learning_rate=1e-2),
        doc="moves the mean along the strategy's gradient; not read by strategies that only recombine",
        group="optimizer",
    )
    fitness_shaping: str = static(
        "own",
        doc="own: the strategy's (Open_ES, PGPE: centered_rank; ARS: raw; SNES: recombination weights)",
        choices=("own", "centered_rank", "pairwise_rank", "raw"),
    )
    num_tasks: int = static(1, doc="lifetimes of each member", at_least=1)
    share: str = static(
        "pair",
        doc="who lives on the same tasks and random numbers: an antithetic pair or the whole population",
        choices=("pair", "population"),
    )
    max_lifetime: int = static(
        doc="inner updates computed for every lifetime; longer ones are cut", at_least=1
    )
    segments: int = static(1, doc="equal stretches of life, each followed by an evaluation", at_least=1)
    score_over: str = static(
        "end", doc="fitness of a life: its last evaluation or the mean of all", choices=("end", "life")
    )

    def __post_init__(self) -> None:
        decays = self.sigma_decay is not None
        strategies.check(self.strategy, self.population, self.share, self.fitness_shaping, decays)
        if self.sigma_min is not None and not decays:
            raise ValueError("sigma_min: sigma does not decay without sigma_decay; set it or leave both out")
        if self.max_lifetime % self.segments:
            raise ValueError(
                f"segments: {self.segments} does not divide max_lifetime {self.max_lifetime}; "
                "choose a divisor of it"
            )

    def init(self, key: Array) -> EvolutionState:
        """A population around fresh meta-parameters.

        Raises:
            TypeError: the inner loop has no meta-parameters.
        """
        meta_key, search_key = jax.random.split(key)
        meta = self.inner.init_meta(meta_key)
        require_meta_params(self.inner, meta)
        strategy, params = self._strategy()
        search = _plain(strategy.init)(strategy, search_key, meta, params)
        search = strategies.begun(self.strategy, search, self.sigma)
        return EvolutionState(_strong(search), init_memory(self.tasks))

    def step(
        self, key: Array, state: EvolutionState, data: PyTree
    ) -> tuple[EvolutionState, dict[str, Array]]:
        """One generation: ask, raise every member's learners, tell.

        Lifetimes are lived without host-fed data: ``data`` is not read.
        """
        del data
        ask_key, live_key, tell_key = jax.random.split(key, 3)
        strategy, params = self._strategy()
        state = state._replace(search=self._cooled(state.search))
        members, search = _plain(strategy.ask)(strategy, ask_key, state.search, params)
        mean = strategy.get_mean(search)
        fitness, score, memory = self._fitness(live_key, members, mean, state.memory)
        search, _ = _plain(strategy.tell)(strategy, tell_key, members, -_finite(fitness), search, params)
        metrics = {
            "score": score,
            "fitness_mean": jnp.mean(_finite(fitness)),
            "fitness_max": jnp.max(_finite(fitness)),
            "fitness_std": jnp.std(_finite(fitness)),
            "spread": _spread(members, strategy.get_mean(state.search)),
            "broken": jnp.mean((~jnp.isfinite(fitness)).astype(jnp.float32)),
        }
        if isinstance(self.inner, Valued):
            metrics |= {f"inner/meta/{name}": value for name, value in self.inner.values_of(mean).items()}
        return EvolutionState(_strong(search), memory), metrics

    def meta_params(self, state: EvolutionState) -> PyTree:
        """The population's mean: the best member is the luckiest, not the best."""
        return self._strategy()[0].get_mean(state.search)

    def _strategy(self) -> tuple[Any, Any]:
        """The evosax strategy and its parameters, made inside the trace: sigma and rates are leaves."""
        shapes = jax.eval_shape(self.inner.init_meta, jax.random.key(0))
        template = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        sigma = jnp.asarray(self.sigma, jnp.float32)
        optimizer = self.optimizer.make()
        return strategies.make(
            self.strategy, self.population, template, optimizer, sigma, self.fitness_shaping
        )

    def _cooled(self, search: PyTree) -> PyTree:
        """The strategy's state with the sigma of its generation."""
        if self.sigma_decay is None:
            return search
        sigma = self.sigma * self.sigma_decay**search.generation_counter
        sigma = sigma if self.sigma_min is None else jnp.maximum(sigma, self.sigma_min)
        return search.replace(std=strategies.scaled_sigma(self.strategy, sigma, search.mean.size))

    def _fitness(
        self, key: Array, members: PyTree, mean: PyTree, memory: PyTree
    ) -> tuple[Array, Array, PyTree]:
        """Fitness ``[N]`` of the members, ``[]`` of their mean, and what the tasks learned.

        Members stand in a grid ``[rows, groups]``: a group's rows share their tasks and random numbers. The
        mean is one more group where pairs share, one more row where all do: one program raises them all.
        """
        rows = 2 if self.share == "pair" else self.population
        axis = 1 if self.share == "pair" else 0

        def arrange(of_members: Array, of_mean: Array) -> Array:
            grid = of_members.reshape(rows, -1, *of_mean.shape)
            edge = (rows, 1) if axis == 1 else (1, 1)
            return jnp.concatenate([grid, jnp.broadcast_to(of_mean, edge + of_mean.shape)], axis)

        grid = jax.tree.map(arrange, members, mean)
        groups = jax.tree.leaves(grid)[0].shape[1]
        raise_rows = jax.vmap(self._raise_learners, in_axes=(None, 0, None))
        keys = jax.random.split(key, groups)
        if groups == 1:  # no axis of one: XLA takes longer over small products that have it
            alone = raise_rows(keys[0], jax.tree.map(lambda leaf: leaf[:, 0], grid), memory)
            scores, tickets = jax.tree.map(lambda leaf: leaf[:, None], alone)
        else:
            raise_groups = jax.vmap(raise_rows, in_axes=(0, 1, None), out_axes=1)
            scores, tickets = raise_groups(keys, grid, memory)
        if isinstance(self.tasks, AdaptiveTaskDistribution):
            flat = jax.tree.map(lambda leaf: leaf[0].reshape(-1, *leaf.shape[3:]), tickets)
            lived = jnp.mean(scores, axis=0).ravel()
            memory = self.tasks.update(memory, flat, lived, jnp.isfinite(lived))
        each = jnp.mean(scores, axis=-1)
        if axis == 1:
            return each[:, :-1].ravel(), each[0, -1], memory
        return each[:-1].ravel(), each[-1, 0], memory

    def _raise_learners(self, key: Array, meta: PyTree, memory: PyTree) -> tuple[Array, PyTree]:
        """Scores ``[num_tasks]`` of one member's learners, and the tickets of their tasks."""
        birth_key, live_key = jax.random.split(key)
        slots = born(self.inner, self.tasks, birth_key, meta, memory, self.num_tasks, stagger=False)
        keys = jax.random.split(live_key, self.num_tasks)
        return jax.vmap(self._live, in_axes=(0, None, 0))(keys, meta, slots), slots.ticket

    def _live(self, key: Array, meta: PyTree, slot: Slots) -> Array:
        """[] score of one whole life."""
        length = self.max_lifetime // self.segments

        def segment(state: PyTree, xs: tuple[Array, Array]) -> tuple[PyTree, tuple[Array, Array]]:
            key, age = xs
            unroll_key, evaluate_key = jax.random.split(key)
            remaining = slot.lifetime - age
            lived, outs = unroll(self.inner, unroll_key, meta, state, length, remaining=remaining)
            lived, evaluation = self.inner.evaluate(evaluate_key, meta, lived, outs, None)
            alive = remaining > 0
            return select(alive, lived, state), (evaluation.score, alive)

        ages = length * jnp.arange(self.segments, dtype=jnp.int32)
        keys = jax.random.split(key, self.segments)
        _, (scores, alive) = jax.lax.scan(segment, slot.state, (keys, ages))
        count = jnp.maximum(jnp.sum(alive), 1)
        if self.score_over == "end":
            return scores[count - 1]
        return jnp.sum(jnp.where(alive, scores, 0.0)) / count


def _plain(method: Any) -> Any:
    """The function under evosax's ``jit``, whose cache would hold the strategy's tracers for ever."""
    return inspect.unwrap(method.__func__ if inspect.ismethod(method) else method)


def _strong(tree: PyTree) -> PyTree:
    """Strongly typed leaves: evosax's state begins with Python numbers, and a step would compile twice."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), tree)


def _spread(members: PyTree, mean: PyTree) -> Array:
    """[] root mean square distance of a member's coordinate from the mean."""
    squares = jax.tree.map(lambda leaf, centre: jnp.sum(jnp.square(leaf - centre)), members, mean)
    count = sum(leaf.size for leaf in jax.tree.leaves(members))
    return jnp.sqrt(sum(jax.tree.leaves(squares)) / count)


def _finite(fitness: Array) -> Array:
    """[N] with what is not finite set to the worst finite fitness (0 if there is none)."""
    finite = jnp.isfinite(fitness)
    worst = jnp.min(jnp.where(finite, fitness, jnp.inf))
    return jnp.where(finite, fitness, jnp.where(jnp.any(finite), worst, 0.0))

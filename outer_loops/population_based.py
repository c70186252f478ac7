"""Population-based training (Jaderberg et al. 2017, arXiv:1711.09846) of a learner's meta-parameters.

``N`` learners live side by side, each with meta-parameters of its own. After every ``interval`` truncations
the worst become copies of the best, state and meta-parameters (exploit), and their meta-parameters are
perturbed (explore). No gradient is asked of the inner loop. Meta-parameters are mostly a learner's exposed
hyperparameters (``metalab.exposure``): unconstrained numbers, each of which stands for a value in its
range.

Exploitation is the paper's truncation selection: a member of the bottom fraction is replaced by one drawn
uniformly from the top fraction. To explore, a meta-parameter moves by the logarithm of one of two factors,
which multiplies what it stands for by that factor where its scale is ``log`` (and its odds between two
ends), or is drawn anew.

**Deviations**: members are compared by their mean score since the last exploitation, not by evaluations of
their own; all of them are compared at the same moments instead of asynchronously; a member that breaks down
counts as the worst. A copy is a whole life, its task and its age included, so lives should be equally long:
members then are born and die together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from metalab.components import component, number, part, static
from metalab.lifetimes import (
    Slots,
    advance,
    born,
    broken_of,
    init_memory,
    rebirth,
    slot_metrics,
    taught,
    unroll,
)
from metalab.protocols import Evaluation, InnerLoop, PyTree, TaskDistribution, Valued
from metalab.trees import select
from outer_loops.refusals import require_meta_params

__all__ = ["PopulationBased", "PopulationState", "replacements"]

_QUANTILES = {"low": 0.1, "median": 0.5, "high": 0.9}


class PopulationState(NamedTuple):
    """Outer state.

    Attributes:
        metas: the members' meta-parameters, leaves ``[N, ...]``.
        slots: their lives, leaves ``[N, ...]``.
        score: [N] mean score since the last exploitation, right after one those that decided it; -inf:
            broken down.
        truncations: [] int32, how many have been lived since.
        memory: of an adaptive task distribution, else ().
    """

    metas: PyTree
    slots: Slots
    score: Array
    truncations: Array
    memory: PyTree


@component
class PopulationBased:
    """Population-based training: the worst copy the best and perturb (Jaderberg et al. 2017)."""

    inner: InnerLoop = part(doc="what learns", group="inner")
    tasks: TaskDistribution = part(doc="what it lives in", group="tasks")
    population: int = static(16, doc="N, members", at_least=2)
    truncation: int = static(5, doc="K, inner updates between two evaluations", at_least=1)
    interval: int = number(4, doc="truncations between two exploitations", at_least=1)
    fraction: float = number(0.2, doc="share of members that is replaced, and copied", above=0.0, at_most=0.5)
    spread: float = number(
        1.0, doc="deviation of the first members' meta-parameters, which are unconstrained", at_least=0.0
    )
    factors: tuple[float, float] = number((0.8, 1.2), doc="a perturbation is by one of the two", above=0.0)
    resample: float = number(
        0.0, doc="probability that a meta-parameter is drawn anew instead", at_least=0.0, at_most=1.0
    )

    def init(self, key: Array) -> PopulationState:
        """Members around fresh meta-parameters, and their newborn learners.

        Raises:
            TypeError: the inner loop has no meta-parameters.
        """
        meta_key, born_key = jax.random.split(key)
        metas = self._drawn(meta_key)
        require_meta_params(self.inner, metas)
        memory = init_memory(self.tasks)

        def birth(key: Array, meta: PyTree) -> Slots:
            return _alone(born(self.inner, self.tasks, key, meta, memory, 1, stagger=False))

        return PopulationState(
            metas=metas,
            slots=jax.vmap(birth)(jax.random.split(born_key, self.population), metas),
            score=jnp.zeros(self.population),
            truncations=jnp.zeros((), jnp.int32),
            memory=memory,
        )

    def step(
        self, key: Array, state: PopulationState, data: PyTree
    ) -> tuple[PopulationState, dict[str, Array]]:
        """One truncation of every member; exploitation and exploration where it is due.

        Args:
            key: PRNG key.
            state: before.
            data: leaves ``[N, K, ...]`` or None.
        """
        birth_key, live_key, choose_key, explore_key = jax.random.split(key, 4)
        slots = self._reborn(birth_key, state)
        keys = jax.random.split(live_key, self.population)
        axes = (0, 0, 0, None if data is None else 0)
        states, evaluation = jax.vmap(self._live, axes)(state.metas, keys, slots, data)
        lived = advance(slots, states, self.truncation, evaluation.broken)
        ended = lived.age >= lived.lifetime
        count = state.truncations + 1
        judged = state._replace(
            slots=lived,
            score=_mean_score(state, evaluation),
            truncations=jnp.where(count >= self.interval, 0, count),
            memory=taught(self.tasks, state.memory, slots, evaluation, ended),
        )
        draws = jax.random.uniform(choose_key, (self.population,))
        source = replacements(judged.score, draws, self.fraction)
        copied = (count >= self.interval) & (source != jnp.arange(self.population))
        metrics = slot_metrics(evaluation, ended) | self._metrics(state.metas, evaluation)
        metrics["copied"] = jnp.mean(copied.astype(jnp.float32))
        return self._exploited(explore_key, judged, source, copied), metrics

    def meta_params(self, state: PopulationState) -> PyTree:
        """Those of the member with the best score, never those of a copy that nobody has lived with yet."""
        return jax.tree.map(lambda leaf: leaf[jnp.argmax(state.score)], state.metas)

    def _live(self, meta: PyTree, key: Array, slot: Slots, batches: PyTree) -> tuple[PyTree, Evaluation]:
        unroll_key, evaluate_key = jax.random.split(key)
        remaining = slot.lifetime - slot.age
        state, outs = unroll(self.inner, unroll_key, meta, slot.state, self.truncation, batches, remaining)
        return self.inner.evaluate(evaluate_key, meta, state, outs, batches)

    def _reborn(self, key: Array, state: PopulationState) -> Slots:
        """The slots, where a life is over with a newborn learner of the same meta-parameters."""

        def one(key: Array, meta: PyTree, slot: Slots) -> Slots:
            together = jax.tree.map(lambda leaf: leaf[None], slot)
            return _alone(rebirth(self.inner, self.tasks, key, meta, state.memory, together))

        return jax.vmap(one)(jax.random.split(key, self.population), state.metas, state.slots)

    def _exploited(self, key: Array, state: PopulationState, source: Array, copied: Array) -> PopulationState:
        """The ``copied`` members [N] bool replaced by their ``source`` [N], and explored.

        A copy keeps the score of the member that it replaced, below that of its source: its meta-parameters
        are new.
        """
        found = jax.tree.map(lambda leaf: leaf[source], (state.metas, state.slots))
        metas, slots = select(copied, found, (state.metas, state.slots))
        metas = select(copied, self._explored(key, metas), metas)
        return state._replace(metas=metas, slots=slots)

    def _explored(self, key: Array, metas: PyTree) -> PyTree:
        """Every meta-parameter moved by the logarithm of a factor, or drawn anew."""
        fresh_key, factor_key, resample_key = jax.random.split(key, 3)
        factors = jnp.log(jnp.asarray(self.factors, jnp.float32))

        def explore(meta: Array, fresh: Array, keys: Sequence[Array]) -> Array:
            coin = jax.random.bernoulli(keys[0], shape=meta.shape)
            moved = meta + jnp.where(coin, factors[1], factors[0]).astype(meta.dtype)
            return jnp.where(jax.random.uniform(keys[1], meta.shape) < self.resample, fresh, moved)

        leaves, structure = jax.tree.flatten(metas)
        keys = zip(*(jax.random.split(k, len(leaves)) for k in (factor_key, resample_key)), strict=True)
        fresh = jax.tree.leaves(self._drawn(fresh_key))
        explored = [explore(own, new, pair) for own, new, pair in zip(leaves, fresh, keys, strict=True)]
        return jax.tree.unflatten(structure, explored)

    def _drawn(self, key: Array) -> PyTree:
        """``N`` meta-parameters around those that the inner loop begins with."""
        meta_key, noise_key = jax.random.split(key)
        leaves, structure = jax.tree.flatten(
            jax.vmap(self.inner.init_meta)(jax.random.split(meta_key, self.population))
        )
        keys = jax.random.split(noise_key, max(len(leaves), 1))
        drawn = [
            leaf + self.spread * jax.random.normal(key, leaf.shape, leaf.dtype)
            for leaf, key in zip(leaves, keys, strict=False)
        ]
        return jax.tree.unflatten(structure, drawn)

    def _metrics(self, metas: PyTree, evaluation: Evaluation) -> dict[str, Array]:
        """The best score of this truncation, and quantiles of what the meta-parameters stand for."""
        best = jnp.max(jnp.where(broken_of(evaluation), -jnp.inf, evaluation.score))
        metrics = {"score_best": jnp.where(jnp.isfinite(best), best, 0.0)}
        if isinstance(self.inner, Valued):
            for name, values in jax.vmap(self.inner.values_of)(metas).items():
                metrics |= {
                    f"inner/meta/{name}/{at}": jnp.quantile(values, q) for at, q in _QUANTILES.items()
                }
        return metrics


def replacements(score: Array, draws: Array, fraction: Array | float) -> Array:
    """Truncation selection: whose copy each member becomes.

    Args:
        score: [N].
        draws: [N] uniform numbers, by which a member of the bottom chooses one of the top.
        fraction: [] share of the members that is the bottom, and the top; one at least.

    Returns:
        [N] int32: a member of the top for one of the bottom that scores less, else the member itself.
    """
    members = jnp.arange(score.shape[0])
    count = jnp.maximum(jnp.floor(fraction * score.shape[0]).astype(jnp.int32), 1)
    order = jnp.argsort(-score)
    rank = jnp.zeros_like(members).at[order].set(members)
    chosen = order[jnp.floor(draws * count).astype(jnp.int32)]
    bottom = rank >= score.shape[0] - count
    return jnp.where(bottom & (score[chosen] > score), chosen, members).astype(jnp.int32)


def _mean_score(state: PopulationState, evaluation: Evaluation) -> Array:
    """[N] with this truncation's score counted in; -inf where a member has broken down."""
    before = jnp.where(state.truncations > 0, state.score, 0.0)
    mean = before + (evaluation.score - before) / (state.truncations + 1)
    whole = jnp.isfinite(mean) & ~broken_of(evaluation)
    return jnp.where(whole, mean, -jnp.inf)


def _alone(slots: Slots) -> Slots:
    """One slot without its axis."""
    return jax.tree.map(lambda leaf: leaf[0], slots)

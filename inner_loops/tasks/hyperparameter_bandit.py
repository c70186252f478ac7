"""A bandit that gives each lifetime its agent's hyperparameters (Oh et al. 2020, arXiv 2007.08794).

A learned rule has to work with some hyperparameters of the agent, which ones depends on the environment and
on the rule itself, and the rule changes. So while the rule is trained, an arm (a learning rate with a weight
of the prediction targets) is drawn at the birth of each lifetime from a table for its type of environment E:

    p(alpha | E)  proportional to  exp((R(alpha, E) + rho / sqrt(N(alpha, E))) / tau)

with R the mean of the final returns of the last 10 lifetimes of that arm and N the number of its lifetimes
(algorithm 1 and appendix B). Discount and policy entropy are drawn uniformly.

**Deviations**. (1) The paper does not say on what scale R is; tau = 0.1 would be a hard maximum over returns
of 30. Here it is normalised to [0, 1] by the lowest and the highest return of that type so far. (2) An arm
without a finished lifetime counts as one with N = 1 and R = 1: as good as the best until it has been tried.

The bandit acts in meta-training alone: ``sample`` and ``sample_set``, which evaluations use, leave the
hyperparameters to the agent.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.base import Environment
from inner_loops.tasks.agent_task import AgentTaskDistribution
from metalab.components import component, number, part
from metalab.protocols import AdaptiveTaskDistribution, Task
from metalab.trees import select

__all__ = ["BanditMemory", "BanditTicket", "HyperparameterBandit"]

_KEPT_RETURNS = 10


class BanditMemory(NamedTuple):
    """What the bandit has seen; E types of environment, A arms.

    Attributes:
        returns: [E, A, 10] the last final returns, a ring.
        lifetimes: [E, A] int32, N.
        lowest: [E] the lowest return so far; inf before the first.
        highest: [E] the highest; -inf before the first.
    """

    returns: Array
    lifetimes: Array
    lowest: Array
    highest: Array


class BanditTicket(NamedTuple):
    """Whose return it is: type of environment and arm, [] int32 each."""

    kind: Array
    arm: Array


@component
class HyperparameterBandit:
    """Bandit over the agent's hyperparameters around another task distribution (Oh et al. 2020)."""

    tasks: AgentTaskDistribution = part(doc="where the worlds come from", group="tasks")
    learning_rate: tuple[float, ...] = number(
        default=(20.0, 40.0, 80.0), doc="the agent's learning rates to choose from; none: its own", above=0.0
    )
    target_weight: tuple[float, ...] = number(
        default=(0.1, 0.5, 1.0), doc="weights of the prediction targets; none: the agent's own", at_least=0.0
    )
    discount: tuple[float, ...] = number(
        default=(0.997, 0.995, 0.99),
        doc="discounts, drawn uniformly; none: the agent's own",
        at_least=0.0,
        at_most=1.0,
    )
    policy_entropy: tuple[float, ...] = number(
        default=(0.01, 0.02), doc="entropy weights, drawn uniformly; none: the agent's own", at_least=0.0
    )
    temperature: float = number(default=0.1, doc="tau, of the arms' softmax", above=0.0)
    exploration: float = number(default=0.2, doc="rho, the bonus of an arm's first lifetime", at_least=0.0)

    def __post_init__(self) -> None:
        if isinstance(self.tasks, AdaptiveTaskDistribution):
            raise ValueError(
                f"hyperparameter_bandit: tasks={type(self.tasks).__name__} adapts by itself; "
                "expected a plain task distribution"
            )

    @property
    def environment(self) -> Environment:
        """The wrapped tasks' environment."""
        return self.tasks.environment

    @property
    def num_kinds(self) -> int:
        """E, the wrapped tasks' types of environment."""
        return self.tasks.num_kinds

    @property
    def num_arms(self) -> int:
        """A: learning rates times target weights."""
        return max(1, len(self.learning_rate)) * max(1, len(self.target_weight))

    def sample(self, key: Array) -> Task:
        """Draws a world; the hyperparameters are the agent's own."""
        return self.tasks.sample(key)

    def sample_set(self, key: Array, count: int) -> Task:
        """The wrapped tasks' set; the hyperparameters are the agent's own."""
        return self.tasks.sample_set(key, count)

    def init_memory(self) -> BanditMemory:
        """Nothing seen."""
        shape = (self.num_kinds, self.num_arms)
        return BanditMemory(
            returns=jnp.zeros((*shape, _KEPT_RETURNS)),
            lifetimes=jnp.zeros(shape, jnp.int32),
            lowest=jnp.full((self.num_kinds,), jnp.inf, jnp.result_type(float)),
            highest=jnp.full((self.num_kinds,), -jnp.inf, jnp.result_type(float)),
        )

    def logits(self, memory: BanditMemory) -> Array:
        """[E, A] logarithms of p(alpha | E), up to a constant of each row."""
        tried = memory.lifetimes > 0
        spread = (memory.highest - memory.lowest)[:, None]
        kept = jnp.arange(_KEPT_RETURNS) < memory.lifetimes[..., None]
        mean = jnp.sum(memory.returns, axis=-1, where=kept) / jnp.maximum(kept.sum(axis=-1), 1)
        known = tried & (spread > 0)
        scaled = (mean - memory.lowest[:, None]) / jnp.where(known, spread, 1.0)
        value = jnp.where(known, scaled, 1.0)
        bonus = self.exploration / jnp.sqrt(jnp.maximum(memory.lifetimes, 1))
        return (value + bonus) / self.temperature

    def sample_from(self, key: Array, memory: BanditMemory) -> tuple[Task, BanditTicket]:
        """Draws a world and hyperparameters for it."""
        task_key, arm_key, discount_key, entropy_key = jax.random.split(key, 4)
        task = self.tasks.sample(task_key)
        kind = task.params.kind
        arm = jax.random.categorical(arm_key, self.logits(memory)[kind]).astype(jnp.int32)
        rate_index, weight_index = jnp.divmod(arm, max(1, len(self.target_weight)))
        chosen = {
            "learning_rate": (self.learning_rate, rate_index),
            "target_weight": (self.target_weight, weight_index),
            "discount": (self.discount, _any_of(discount_key, self.discount)),
            "policy_entropy": (self.policy_entropy, _any_of(entropy_key, self.policy_entropy)),
        }
        hyper = {
            name: jnp.asarray(values, jnp.float32)[index]
            for name, (values, index) in chosen.items()
            if values
        }
        return Task(task.params._replace(hyper=hyper), task.lifetime), BanditTicket(kind, arm)

    def update(
        self, memory: BanditMemory, tickets: BanditTicket, scores: Array, ended: Array
    ) -> BanditMemory:
        """Counts the lifetimes that ended, slot by slot: several may have had the same arm.

        Args:
            memory: before.
            tickets: leaves [P].
            scores: [P] final returns; one that is not finite is not counted.
            ended: [P] bool.
        """

        def count(memory: BanditMemory, slot: tuple[BanditTicket, Array, Array]) -> tuple[BanditMemory, None]:
            (kind, arm), score, over = slot
            place = memory.lifetimes[kind, arm] % _KEPT_RETURNS
            counted = BanditMemory(
                returns=memory.returns.at[kind, arm, place].set(score),
                lifetimes=memory.lifetimes.at[kind, arm].add(1),
                lowest=memory.lowest.at[kind].min(score),
                highest=memory.highest.at[kind].max(score),
            )
            return select(over & jnp.isfinite(score), counted, memory), None

        scores = jnp.asarray(scores, memory.returns.dtype)
        return jax.lax.scan(count, memory, (tickets, scores, ended))[0]


def _any_of(key: Array, values: tuple[float, ...]) -> Array:
    return jax.random.randint(key, (), 0, max(1, len(values)))

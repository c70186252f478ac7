"""Soft constraints by meta-gradients: MetaL, MeSh and their baselines on D4PG.

Calian, Mankowitz, Zahavy, Xu, Oh, Levine and Mann (2021), *Balancing Constraints and Rewards with
Meta-gradient D4PG*, arXiv:2010.06324. Notation: cost ``c`` [C], mean cost of a step ``J_C``, limit ``beta``,
multiplier ``lambda``, log rate ``alpha`` of the multiplier.

One gradient step of the learner, with ``r`` and ``c`` the discounted sums that a transition holds:

1. ``lambda' = max(0, lambda + exp(alpha) (J_C - beta))``, with ``J_C`` from the penalty replay;
2. a step of the critic towards ``r - lambda' c + discount Q_target``, and one of the policy up the critic;
3. the outer loss: the critic's loss after its step, on a minibatch of its own, with the same ``lambda'``;
4. a step of the meta-optimiser on the numbers that are ``tuned``, down the derivative of 3 through 1 and 2.

The methods are settings of it:

===========================  ===========================================================
no constraint                ``multiplier: {start: 0, rate: 0}``
reward shaping, RS-x         ``multiplier: {start: x, rate: 0}``
RC-D4PG                      ``multiplier: {rate: ...}``
a rate that decays           ``multiplier: {rate: ..., schedule: [...]}``
MetaL                        ``tuned: [rate]``
MeSh                         ``tuned: [scale, offset]``: the penalty is ``scale lambda' c + offset``
a threshold (Meta SAC-Lag)   ``tuned: [shift]``: the constraint is ``J_C <= beta + shift``
===========================  ===========================================================

``outer_loss: value`` replaces 3 by minus the value of the policy after step 2, by an outer critic of its own,
with costs weighted as in an evaluation: by ``outer_weight`` where ``J_C`` exceeds its limit. With the
threshold tuned it comes close to Meta SAC-Lag (Honari et al. 2024, arXiv:2408.07962).

The derivative is one backward pass through the outer minibatch and the critic's step, however many numbers
are tuned. It is taken at every gradient step of one life, so it belongs to the learner; an outer loop sees
whole stretches of a life, and can still move any number of it (``inner.meta``).

**Deviations**: the body of the paper could not be read. From its abstract and summaries by others: that MetaL
adapts the multiplier's rate, and that MeSh shapes the reward by a scale and an offset. From recollection: the
log rate, the critic's loss alone as the outer loss, the penalty replay. The derivative was worked out anew
for a squared error and a plain step, and is tested against that form. Our own: an outer minibatch apart from
the inner one; the target networks of the step's beginning in both losses; no ``offset`` in the outer loss,
which could otherwise be lowered by it alone; derivatives straight through the projection of lambda, without
which they vanish at 0; ``J_C`` from environments without noise (``quiet_envs``), because noise violates
constraints by itself; Adam's second moment is not differentiated. The replay is uniform (see
``inner_loops.d4pg``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from inner_loops.classical import in_bounds
from inner_loops.constraints.multiplier import Multiplier
from inner_loops.constraints.outer_value import OuterValue, outer_policy_loss, outer_value_step
from inner_loops.constraints.penalties import (
    Penalties,
    count_penalties,
    mean_penalty,
    no_penalties,
    sample_penalty,
)
from inner_loops.constraints.trial import overshoot, tried
from inner_loops.constraints.tuned import TUNABLE, Tuned, free_numbers, values_of
from inner_loops.d4pg import D4PG, Networks
from inner_loops.experience import World, delayed_starts
from inner_loops.n_step import Step, Transition
from inner_loops.networks.ddpg import deterministic_action, init_critic
from inner_loops.off_policy import OffPolicyState
from metalab.components import component, number, part, static
from metalab.optimizers import Adam, OptimizerSettings
from metalab.protocols import Evaluation, PyTree, StepOut

__all__ = ["ConstrainedLearner", "SoftConstraints"]

Free = dict[str, Array]


class ConstrainedLearner(NamedTuple):
    """What gradient steps change, and what they go by.

    Attributes:
        params, target, optimizer: as ``inner_loops.d4pg.Learner`` has them.
        multiplier: [C] lambda.
        peak: [C] the largest that it was.
        clipped: [] steps in which the projection held a multiplier back.
        free: the tuned numbers by name, [C] each, unconstrained.
        meta_optimizer: the state of what moves them.
        outer_value: the critic of the outer loss ``value``, else ().
        penalties: the penalty replay.
        penalty: [C] ``J_C``, as drawn from it.
        known: [] bool, there was an episode to draw.
        updates: [] int32 gradient steps.
    """

    params: Networks
    target: Networks
    optimizer: Networks
    multiplier: Array
    peak: Array
    clipped: Array
    free: Free
    meta_optimizer: PyTree
    outer_value: OuterValue | tuple[()]
    penalties: Penalties
    penalty: Array
    known: Array
    updates: Array


@component
class SoftConstraints(D4PG):
    """D4PG under soft constraints: fixed or Lagrangian penalties, MetaL and MeSh (Calian et al. 2021)."""

    multiplier: Multiplier = part(Multiplier(), doc="lambda", group="multiplier")
    tuned: tuple[str, ...] = static((), doc="of rate, scale, offset, shift: moved by the meta-gradient")
    meta_optimizer: OptimizerSettings = part(
        Adam(learning_rate=1e-2), doc="moves the tuned numbers", group="optimizer"
    )
    outer_loss: str = static(
        "critic", doc="critic: the paper's; value: see the module", choices=("critic", "value")
    )
    outer_weight: float = number(1.0, doc="of a cost in the outer loss `value`", at_least=0.0)
    normalize: bool = static(False, doc="penalised rewards are divided by 1 + the sum of lambda")
    kappa: float = number(100.0, doc="return that an overshoot of 1 costs in the score", at_least=0.0)
    quiet_envs: int = static(4, doc="environments without noise; they alone give J_C", at_least=1)
    least_noise: float = number(0.1, doc="deviation in the first of the others, up to `noise`", at_least=0.0)
    first_ends: int = static(0, doc="steps over which the ends of first episodes are spread", at_least=0)
    recent_episodes: int = static(
        1, doc="E, episodes of each quiet environment in the penalty replay", at_least=1
    )
    penalty_batch: int = static(0, doc="episodes drawn from it for J_C; 0: the mean of all", at_least=0)
    trial_episodes: int = static(16, doc="episodes without noise that score the policy", at_least=1)
    trial_steps: int = static(200, doc="after which they are cut off", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.tuned:
            if name not in TUNABLE:
                raise ValueError(f"tuned: {name!r} is none of {', '.join(TUNABLE)}")
        if self.quiet_envs > self.num_envs:
            raise ValueError(
                f"quiet_envs: {self.quiet_envs} of {self.num_envs} environments; choose at most num_envs"
            )
        # While jax rebuilds a component from its leaves, parts and numbers may be anything.
        rate = getattr(self.multiplier, "rate", None)
        if "rate" in self.tuned and type(rate) in (int, float) and rate == 0:
            raise ValueError("tuned: rate begins at multiplier.rate, which is 0; choose one above 0")

    def evaluate(
        self, key: Array, meta: PyTree, state: OffPolicyState, outs: StepOut, batch: PyTree
    ) -> tuple[OffPolicyState, Evaluation]:
        """The score is the penalised return of a trial, ``R - kappa sum(max(0, J_C - beta))``."""
        state, evaluation = super().evaluate(key, meta, state, outs, batch)
        trial = self._trial(key, state)
        metrics = {**evaluation.metrics, **trial}
        return state, evaluation._replace(score=trial["penalized_return"], metrics=metrics)

    def assess(self, key: Array, meta: PyTree, state: OffPolicyState) -> dict[str, Array]:
        """``return`` is the penalised one of a trial; its parts stand beside it."""
        del meta
        trial = self._trial(key, state)
        return {"return": trial.pop("penalized_return"), **trial}

    def _init_learner(self, key: Array) -> ConstrainedLearner:
        agent_key, outer_key = jax.random.split(key)
        agent, costs = super()._init_learner(agent_key), self._num_costs()
        start = jnp.full(costs, self.multiplier.start, float)
        free = free_numbers(Tuned(self.multiplier.rate), self.tuned, costs)
        return ConstrainedLearner(
            *agent,
            multiplier=start,
            peak=start,
            clipped=jnp.zeros(()),
            free=free,
            meta_optimizer=self.meta_optimizer.make().init(free),
            outer_value=self._init_outer_value(outer_key, costs),
            penalties=no_penalties(self.recent_episodes, self.quiet_envs, costs),
            penalty=jnp.zeros(costs),
            known=jnp.zeros((), bool),
            updates=jnp.zeros((), jnp.int32),
        )

    def _num_costs(self) -> int:
        if self.environment.num_costs == 0:
            raise ValueError(
                f"soft_constraints: {self.environment} has no costs; wrap it in `costs` (wrapped_tasks)"
            )
        return self.environment.num_costs

    def _init_outer_value(self, key: Array, costs: int) -> OuterValue | tuple[()]:
        if self.outer_loss != "value" or not self.tuned:
            return ()
        shape = self.environment.observation_shape
        critic = init_critic(key, shape, self.critic_sizes, self._action_size(), 1 + costs)
        return OuterValue(critic, critic, self.critic_optimizer.make().init(critic))

    def _new_world(self, key: Array, params: PyTree) -> World:
        world = super()._new_world(key, params)
        if self.first_ends == 0:
            return world
        # The quiet environments' episodes shall end one after the other, so that J_C moves often.
        delays = jnp.arange(self.num_envs) * self.first_ends // self.quiet_envs % self.first_ends
        idle = in_bounds(self.environment, params, jnp.zeros(self._action_size()))
        return delayed_starts(self.environment, key, world, delays, self.first_ends, idle)

    def _deviations(self) -> Array:
        noisy = jnp.linspace(self.least_noise, self.noise, self.num_envs - self.quiet_envs)
        return jnp.concatenate([jnp.zeros(self.quiet_envs), noisy])

    def _watched(self, key: Array, state: OffPolicyState, steps: Step) -> ConstrainedLearner:
        """Costs of the quiet environments go into the penalty replay; random actions' do not count."""
        quiet = slice(self.quiet_envs)
        done = steps.terminated[:, quiet] | steps.truncated[:, quiet]
        before: ConstrainedLearner = state.learner
        penalties = count_penalties(before.penalties, steps.cost[:, quiet], done, self._ready(state))
        if self.penalty_batch:
            penalty, known = sample_penalty(jax.random.fold_in(key, 1), penalties, self.penalty_batch)
        else:
            penalty, known = mean_penalty(penalties)
        return before._replace(penalties=penalties, penalty=penalty, known=known)

    @property
    def _rows(self) -> int:
        """An inner and, where numbers are tuned, an outer minibatch."""
        return 2 * self.batch_size if self.tuned else self.batch_size

    def _gradient_step(
        self, learner: Any, minibatch: Transition, world: World
    ) -> tuple[ConstrainedLearner, Array]:
        limits = self.environment.cost_limits(world.params)
        inner = jax.tree.map(lambda leaf: leaf[: self.batch_size], minibatch)
        if not self.tuned:
            return self._inner_step(learner.free, learner, inner, limits)
        outer = jax.tree.map(lambda leaf: leaf[self.batch_size :], minibatch)

        def judged(free: Free) -> tuple[Array, tuple[ConstrainedLearner, Array]]:
            moved, loss = self._inner_step(free, learner, inner, limits)
            return self._outer_loss(free, learner, moved, outer, limits), (moved, loss)

        # One backward pass for all tuned numbers; forward mode makes a product for each.
        gradient, (moved, loss) = jax.grad(judged, has_aux=True)(learner.free)
        change, moments = self.meta_optimizer.make().update(gradient, learner.meta_optimizer, learner.free)
        free: Any = optax.apply_updates(learner.free, change)
        return moved._replace(free=free, meta_optimizer=moments), loss

    def _inner_step(
        self, free: Free, learner: ConstrainedLearner, minibatch: Transition, limits: Array
    ) -> tuple[ConstrainedLearner, Array]:
        """Steps 1 and 2 of the module, differentiable in ``free``, and the critic's loss before them."""
        values = self._values(free, learner.updates)
        violation = jnp.where(learner.known, learner.penalty - limits - values.shift, 0.0)
        climbed = learner.multiplier + values.rate * violation
        multiplier = self.multiplier.projected(climbed)
        penalised = self._penalised(minibatch, multiplier, values.scale, values.offset)
        critic, of_critic, loss = self._critic_step(learner, penalised)
        # The outer loss `value` sees the multiplier through the policy, which must then climb the new critic.
        judge = critic if self.outer_loss == "value" else learner.params.critic
        policy, of_policy = self._policy_step(learner, judge, minibatch)
        moved = self._moved(learner, Networks(policy, critic), Networks(of_policy, of_critic))
        return moved._replace(
            multiplier=multiplier,
            peak=jnp.maximum(learner.peak, multiplier),
            clipped=learner.clipped + jnp.any(multiplier != climbed),
            outer_value=self._outer_value_step(learner, minibatch),
            updates=learner.updates + 1,
        ), loss

    def _values(self, free: Free, updates: Array) -> Tuned:
        """The tuned values; of a rate that is not tuned the settings'."""
        return values_of(free, Tuned(self.multiplier.rate * self.multiplier.factor(updates)))

    def _penalised(
        self, minibatch: Transition, multiplier: Array, scale: Array | float, offset: Array | float
    ) -> Transition:
        """The transitions, paid ``r - sum(scale lambda c + offset)``."""
        reward = minibatch.reward - jnp.sum(scale * multiplier * minibatch.cost + offset, axis=-1)
        if self.normalize:
            reward = reward / (1.0 + jnp.sum(scale * multiplier))
        return minibatch._replace(reward=reward)

    def _outer_loss(
        self,
        free: Free,
        learner: ConstrainedLearner,
        moved: ConstrainedLearner,
        minibatch: Transition,
        limits: Array,
    ) -> Array:
        """[] step 3 of the module: ``moved`` is the learner after step 2, ``learner`` the one before 1."""
        if isinstance(learner.outer_value, OuterValue):
            weight = self.outer_weight * (learner.known & (learner.penalty > limits))
            critic = learner.outer_value.critic
            return outer_policy_loss(critic, moved.params.policy, minibatch.obs, weight)
        scale = self._values(free, learner.updates).scale
        penalised = self._penalised(minibatch, moved.multiplier, scale, 0.0)
        return self._critic_loss(moved.params.critic, learner.target, penalised)

    def _outer_value_step(self, learner: ConstrainedLearner, minibatch: Transition) -> OuterValue | tuple[()]:
        before = learner.outer_value
        if not isinstance(before, OuterValue):
            return before
        optimizer = self.critic_optimizer.make()
        return outer_value_step(before, learner.target.policy, minibatch, optimizer, self.target_rate)

    def _trial(self, key: Array, state: OffPolicyState) -> dict[str, Array]:
        """What the policy is worth without noise: penalised return, return, overshoot and costs."""
        params = state.world.params

        def policy(obs: Array) -> Array:
            chosen = deterministic_action(state.learner.params.policy, obs)
            return in_bounds(self.environment, params, chosen)

        trial = tried(self.environment, key, params, policy, self.trial_episodes, self.trial_steps)
        beyond = overshoot(trial.cost, self.environment.cost_limits(params))
        return {
            "penalized_return": trial.score - self.kappa * beyond,
            "unpenalized_return": trial.score,
            "overshoot": beyond,
            **_by_cost("cost", trial.cost),
        }

    def _metrics(self, state: OffPolicyState) -> dict[str, Array]:
        learner: ConstrainedLearner = state.learner
        values = self._values(learner.free, learner.updates)
        tuned = {name: getattr(values, name) for name in self.tuned if name != "rate"}
        by_cost = {
            "multiplier": learner.multiplier,
            "multiplier_peak": learner.peak,
            "multiplier_rate": values.rate,
            "penalty": learner.penalty,
            **tuned,
        }
        metrics = {"multiplier_clipped": learner.clipped}
        for name, value in by_cost.items():
            metrics |= _by_cost(name, jnp.broadcast_to(value, learner.multiplier.shape))
        return metrics


def _by_cost(name: str, values: Array) -> dict[str, Array]:
    """Values [C] as scalars, numbered where there are several."""
    if values.shape[0] == 1:
        return {name: values[0]}
    return {f"{name}_{index}": value for index, value in enumerate(values)}

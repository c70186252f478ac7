"""The learned policy gradient (Oh et al. 2020, arXiv:2007.08794): a recurrent network writes the targets.

A reverse-time core reads ``x_t = [r_t, d_t, gamma, pi(a_t|s_t), phi(y(s_t)), phi(y(s_{t+1}))]`` (section 3.2)
and writes, for every step, ``pi_hat`` (what to multiply the policy's log-probability gradient by) and
``y_hat`` (a categorical target for the agent's prediction vector ``y``). The agent moves along eq. 2:
``E[grad log pi(a|s) pi_hat - alpha_y grad KL(y(s) || y_hat)]``.

The targets are constants of the agent's own gradient, but they are functions of the meta-parameters and of
the agent's earlier predictions: a meta-gradient reaches the y-head only through a later update that reads
the y which an earlier update wrote, so nothing here stops the gradient at y. It is stopped at pi (an option;
the paper does not say).

Deviations:
* The paper's d_t marks the end of an episode and its text resets the core "for d_t = 0"; here d_t = 1 at the
  end (termination or time limit alike, as in the paper's environments) and the core is reset there.
* phi(y(s_{t+1})) is zero where the episode ended: the stored next state belongs to another episode.
* Output path (not spelt out in the paper): the core's output through a ReLU to two linear heads.
* The GRU core, sizes other than 256 and 30, and the conditioning on the lifetime (n / N and log N, as in
  temporally-aware LPG, Jackson et al. 2024, arXiv:2402.05828) are options.
* The cotangent that one update's targets receive is bounded per lifetime, and non-finite inputs are read as
  zero, so that one broken lifetime leaves the meta-gradient of the others as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.networks.recurrent import CORES, CoreParams, core_init
from inner_loops.trajectory import Trajectory
from inner_loops.update_rules.base import RuleInputs, log_policy, taken
from metalab.components import component, number, static
from metalab.gradients import guard

__all__ = ["LPG", "Dense", "LPGParams", "LPGTargets"]


class Dense(NamedTuple):
    """A linear layer: kernel [in, out], bias [out]."""

    kernel: Array
    bias: Array


class LPGParams(NamedTuple):
    """The meta-parameters eta.

    Attributes:
        embed_hidden, embed_out: phi, R^m -> R.
        core: the reverse-time core.
        pi_head, y_head: the outputs.
    """

    embed_hidden: Dense
    embed_out: Dense
    core: CoreParams
    pi_head: Dense
    y_head: Dense


class LPGTargets(NamedTuple):
    """What the rule writes.

    Attributes:
        pi_hat: [T, B].
        log_y_hat: [T, B, m] log-probabilities.
    """

    pi_hat: Array
    log_y_hat: Array


@component
class LPG:
    """Learned policy gradient: a reverse-time recurrent network writes the agent's targets."""

    core: str = static("lstm", doc="recurrent core", choices=tuple(CORES))
    hidden_size: int = static(256, doc="units of the core", at_least=1)
    prediction_size: int = static(30, doc="m, entries of the prediction vector y", at_least=2)
    embedding_size: int = static(16, doc="hidden units of phi", at_least=1)
    lifetime_conditioning: bool = static(False, doc="the rule also reads n / N and log N (TA-LPG)")
    constant_next_prediction: bool = static(
        False, doc="ablation: read a uniform y(s_{t+1}) instead of the agent's"
    )
    stop_policy_input: bool = static(
        True, doc="no meta-gradient through the probability pi(a|s) that the rule reads"
    )
    target_weight: float = number(0.5, doc="alpha_y, weight of the KL to y_hat", at_least=0.0)
    prediction_entropy: float = number(1e-3, doc="beta_1, outer bonus for the entropy of y", at_least=0.0)
    pi_hat_l2: float = number(1e-3, doc="beta_2, outer penalty on pi_hat squared", at_least=0.0)
    y_hat_l2: float = number(1e-3, doc="beta_3, outer penalty on y_hat squared", at_least=0.0)
    max_cotangent: float = number(
        float("inf"),
        doc="bound on the norm of what one lifetime's targets of one update pass back",
        above=0.0,
    )

    @property
    def is_learned(self) -> bool:
        """See ``UpdateRule``."""
        return True

    def heads(self, num_actions: int) -> dict[str, int]:
        """See ``UpdateRule``."""
        return {"logits": num_actions, "y": self.prediction_size}

    def init_meta(self, key: Array) -> LPGParams:
        """LeCun-normal weights, zero biases."""
        keys = jax.random.split(key, 5)
        inputs = 8 if self.lifetime_conditioning else 6
        return LPGParams(
            _dense_init(keys[0], self.prediction_size, self.embedding_size),
            _dense_init(keys[1], self.embedding_size, 1),
            core_init(keys[2], self.core, inputs, self.hidden_size),
            _dense_init(keys[3], self.hidden_size, 1),
            _dense_init(keys[4], self.hidden_size, self.prediction_size),
        )

    def targets(self, meta: LPGParams, inputs: RuleInputs) -> LPGTargets:
        """``LPGTargets`` of a rollout; see the module's docstring for what may be differentiated."""
        trajectory = inputs.trajectory
        log_probs = log_policy(inputs.outputs["logits"][:-1], trajectory.action_mask)
        taken_probability = jnp.exp(taken(log_probs, trajectory.action))
        if self.stop_policy_input:
            taken_probability = jax.lax.stop_gradient(taken_probability)
        embedded = self._embed(meta, inputs.outputs["y"])
        following = embedded[1:]
        if self.constant_next_prediction:
            following = jnp.broadcast_to(self._embed(meta, jnp.zeros(self.prediction_size)), following.shape)
        done = trajectory.done
        shape = trajectory.reward.shape
        features = [
            _finite(trajectory.reward),
            done.astype(embedded.dtype),
            jnp.broadcast_to(inputs.hyper["discount"], shape),
            _finite(taken_probability),
            embedded[:-1],
            jnp.where(done, 0.0, following),
        ]
        if self.lifetime_conditioning:
            features += [jnp.broadcast_to(x, shape) for x in (inputs.progress, jnp.log(inputs.lifetime))]
        states = jax.vmap(CORES[self.core], (None, 1, 1), 1)(meta.core, jnp.stack(features, -1), done)
        return guard(_read_out(meta, states), self.max_cotangent)

    def loss(
        self,
        outputs: Mapping[str, Array],
        trajectory: Trajectory,
        targets: LPGTargets,
        hyper: Mapping[str, Array],
    ) -> Array:
        """The loss whose descent is eq. 2."""
        log_probs = log_policy(outputs["logits"], trajectory.action_mask)
        policy_gradient = jnp.mean(taken(log_probs, trajectory.action) * targets.pi_hat)
        log_y = jax.nn.log_softmax(outputs["y"])
        divergence = jnp.sum(jnp.exp(log_y) * (log_y - targets.log_y_hat), axis=-1)
        return -policy_gradient + hyper["target_weight"] * jnp.mean(divergence)

    def regulariser(self, outputs: Mapping[str, Array], targets: LPGTargets) -> tuple[Array, dict[str, Any]]:
        """The terms of beta_1, beta_2 and beta_3 (eq. 5) on validation data at theta_K."""
        log_y = jax.nn.log_softmax(outputs["y"])
        y_entropy = -jnp.mean(jnp.sum(jnp.exp(log_y) * log_y, axis=-1))
        pi_hat_square = jnp.mean(jnp.square(targets.pi_hat))
        y_hat_square = jnp.mean(jnp.sum(jnp.exp(2.0 * targets.log_y_hat), axis=-1))
        penalty = (
            self.pi_hat_l2 * pi_hat_square
            + self.y_hat_l2 * y_hat_square
            - self.prediction_entropy * y_entropy
        )
        metrics = {"prediction_entropy": y_entropy, "pi_hat_square": pi_hat_square}
        return penalty, metrics

    def _embed(self, meta: LPGParams, y_logits: Array) -> Array:
        """[...] phi of ``[..., m]`` prediction logits, computed once per state and used twice."""
        y = jax.nn.softmax(_finite(y_logits))
        hidden = jax.nn.relu(y @ meta.embed_hidden.kernel + meta.embed_hidden.bias)
        return (hidden @ meta.embed_out.kernel + meta.embed_out.bias)[..., 0]


def _dense_init(key: Array, num_inputs: int, num_outputs: int) -> Dense:
    kernel = jax.random.normal(key, (num_inputs, num_outputs)) / jnp.sqrt(num_inputs)
    return Dense(kernel, jnp.zeros(num_outputs))


def _read_out(meta: LPGParams, states: Array) -> LPGTargets:
    hidden = jax.nn.relu(states)
    pi_hat = (hidden @ meta.pi_head.kernel + meta.pi_head.bias)[..., 0]
    return LPGTargets(pi_hat, jax.nn.log_softmax(hidden @ meta.y_head.kernel + meta.y_head.bias))


def _finite(values: Array) -> Array:
    """Non-finite entries as zero, in the value and in the gradient."""
    return jnp.where(jnp.isfinite(values), values, 0.0)

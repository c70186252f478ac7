"""Every catalogued learner passes the contract, under every outer loop that makes sense for it.

Being catalogued is being tested: rules, networks and tasks are read from the catalogues.
"""

import dataclasses

import jax
import pytest

import inner_loops
import outer_loops
from inner_loops.actor_critic import ActorCritic
from inner_loops.agents.symla import SymLA
from inner_loops.critics import NetworkCritic, TabularCritic
from inner_loops.d4pg import D4PG
from inner_loops.in_context import InContext
from metalab.catalogue import resolve
from metalab.contracts import check_inner, check_outer

# What a catalogued task distribution or outer loop cannot do without.
ARGUMENTS = {
    "gymnax_tasks": {"name": "Catch-bsuite"},
    "cart_pole_goals": {"discrete": True},
    "evolution_strategy": {"population": 4, "max_lifetime": 2},
    "meta_gradient": {"num_slots": 2, "truncation": 2},
    "population_based": {"population": 4, "truncation": 2},
    "persistent_evolution": {"num_pairs": 2, "truncation": 2},
    "fixed": {"num_slots": 2, "truncation": 2},
}
CONTINUOUS = ("pendulum_swing_ups", "point_goals")


def tasks_of(kind: str):
    made = resolve(kind, "tasks", "tasks")
    around = ("hyperparameter_bandit", "wrapped_tasks")
    wrapped = {"tasks": tasks_of("delayed_chains")} if kind in around else {}
    if kind == "trials":
        wrapped = {"tasks": tasks_of("dark_rooms"), "judged_on": made_of("dark_rooms", part="held_out")}
    return made(**ARGUMENTS.get(kind, {}), **wrapped)


def made_of(kind: str, **arguments):
    return resolve(kind, "tasks", "tasks")(**arguments)


def agent(rule: str, tasks, network: str | None = None) -> ActorCritic:
    tabular = tasks.environment.num_states is not None
    network = network or ("tabular" if tabular else "mlp")
    return ActorCritic(
        rule=resolve(rule, "rule", "rule")(**({"hidden_size": 4} if rule == "lpg" else {})),
        network=resolve(network, "network", "network")(),
        critic=TabularCritic() if network == "tabular" else NetworkCritic(),
        environment=tasks.environment,
        num_envs=2,
        rollout_length=3,
    )


def in_context(agent, tasks) -> InContext:
    return InContext(agent=agent, environment=tasks.environment, rollout_length=2)


# Worlds to act in; learners that are taught by examples and simulated bodies have tests of their own.
SIMULATED = {kind for kind in inner_loops.CATALOGUE["tasks"] if kind.startswith("mujoco_")}
WORLDS = sorted({*inner_loops.CATALOGUE["tasks"]} - {"taught_by_examples", *CONTINUOUS, *SIMULATED})


@pytest.mark.parametrize("tasks", CONTINUOUS)
def test_worlds_of_continuous_actions_keep_the_contract(tasks):
    world = tasks_of(tasks)
    check_inner(D4PG(environment=world.environment, num_envs=2, rollout_length=2), world)


@pytest.mark.parametrize("tasks", WORLDS)
@pytest.mark.parametrize("rule", sorted(inner_loops.CATALOGUE["rule"]))
def test_every_rule_keeps_the_contract_in_every_world(rule, tasks):
    world = tasks_of(tasks)
    check_inner(agent(rule, world), world)


@pytest.mark.parametrize("network", sorted(inner_loops.CATALOGUE["network"]))
def test_every_network_keeps_the_contract(network):
    tasks = {
        "tabular": {"preset": "small"},
        "mlp": {"preset": "random_small"},
        "conv": {"preset": "random_small"},
        "towers": {"preset": "random_small"},
        "streams": {"preset": "random_small"},
    }[network]
    world = resolve("grid_worlds", "tasks", "tasks")(**tasks)
    check_inner(agent("lpg", world, network), world)


@pytest.mark.parametrize("kind", sorted(inner_loops.CATALOGUE["agent"]))
def test_every_agent_that_learns_in_context_keeps_the_contract(kind):
    for world in (tasks_of("bernoulli_bandits"), tasks_of("grid_worlds")):
        check_inner(in_context(resolve(kind, "agent", "agent")(), world), world)


@pytest.mark.parametrize("tasks", WORLDS)
def test_a_symmetric_agent_lives_in_every_world(tasks):
    world = tasks_of(tasks)
    check_inner(in_context(SymLA(hidden_size=2, message_size=2), world), world)


@pytest.mark.parametrize("kind", sorted(outer_loops.CATALOGUE["outer"]))
@pytest.mark.parametrize("agent", ["symla", "meta_rnn", "thompson"])
def test_every_outer_loop_takes_an_agent_that_learns_in_context_or_refuses_by_name(kind, agent):
    world = dataclasses.replace(tasks_of("bernoulli_bandits"), lifetime=2)
    inner = in_context(resolve(agent, "agent", "agent")(), world)
    outer = resolve(kind, "outer", "outer")(inner=inner, tasks=world, **ARGUMENTS[kind])
    refused = "no meta-parameters" if agent == "thompson" else "InContext has no differentiable outer loss"
    if kind == "fixed" or (agent != "thompson" and kind != "meta_gradient"):
        check_outer(outer)
    else:
        with pytest.raises((TypeError, ValueError), match=refused):
            check_outer(outer)


@pytest.mark.parametrize("kind", sorted(outer_loops.CATALOGUE["outer"]))
@pytest.mark.parametrize("rule", sorted(inner_loops.CATALOGUE["rule"]))
def test_every_outer_loop_composes_or_refuses_by_name(kind, rule):
    world = dataclasses.replace(tasks_of("delayed_chains"), lifetime=2)
    made = resolve(kind, "outer", "outer")
    outer = made(inner=agent(rule, world), tasks=world, **ARGUMENTS[kind])
    if rule == "a2c" and kind != "fixed":
        with pytest.raises((TypeError, ValueError), match="no meta-parameters"):
            check_outer(outer)
    else:
        check_outer(outer)
        assert jax.tree.leaves(jax.eval_shape(outer.init, jax.random.key(0)))

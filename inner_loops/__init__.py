"""Learners and what they are made of; the catalogue maps a name to where its class lives."""

__all__ = ["CATALOGUE"]

CATALOGUE: dict[str, dict[str, str]] = {
    "inner": {"actor_critic": "inner_loops.actor_critic:ActorCritic"},
    "rule": {
        "a2c": "inner_loops.update_rules.a2c:A2C",
        "lpg": "inner_loops.update_rules.lpg:LPG",
    },
    "network": {
        "tabular": "inner_loops.networks.tabular:TabularNetwork",
        "mlp": "inner_loops.networks.mlp:MlpNetwork",
        "conv": "inner_loops.networks.mlp:ConvNetwork",
    },
    "critic": {
        "tabular": "inner_loops.critics:TabularCritic",
        "network": "inner_loops.critics:NetworkCritic",
    },
    "environment": {
        "grid_world": "inner_loops.environments.grid_world:GridWorld",
        "delayed_chain": "inner_loops.environments.delayed_chain:DelayedChain",
        "gymnax": "inner_loops.environments.gymnax_adapter:GymnaxEnvironment",
    },
    "tasks": {
        "grid_worlds": "inner_loops.tasks.grid_worlds:GridWorlds",
        "delayed_chains": "inner_loops.tasks.delayed_chains:DelayedChains",
        "gymnax_tasks": "inner_loops.tasks.gymnax_tasks:GymnaxTasks",
        "hyperparameter_bandit": "inner_loops.tasks.hyperparameter_bandit:HyperparameterBandit",
    },
}

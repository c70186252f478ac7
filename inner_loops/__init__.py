"""Learners and what they are made of; the catalogue maps a name to where its class lives."""

__all__ = ["CATALOGUE"]

CATALOGUE: dict[str, dict[str, str]] = {
    "inner": {
        "actor_critic": "inner_loops.actor_critic:ActorCritic",
        "ppo": "inner_loops.ppo:PPO",
        "recurrent_ppo": "inner_loops.recurrent_ppo:RecurrentPPO",
        "dqn": "inner_loops.dqn:DQN",
        "d4pg": "inner_loops.d4pg:D4PG",
        "soft_constraints": "inner_loops.soft_constraints:SoftConstraints",
        "q_learning": "inner_loops.q_learning:QLearning",
    },
    "rule": {
        "a2c": "inner_loops.update_rules.a2c:A2C",
        "lpg": "inner_loops.update_rules.lpg:LPG",
    },
    "network": {
        "tabular": "inner_loops.networks.tabular:TabularNetwork",
        "mlp": "inner_loops.networks.mlp:MlpNetwork",
        "conv": "inner_loops.networks.mlp:ConvNetwork",
        "towers": "inner_loops.networks.policy:TowerNetwork",
        "streams": "inner_loops.networks.q_network:StreamNetwork",
    },
    "core": {
        "gru": "inner_loops.networks.memory.gru:GRU",
        "s5": "inner_loops.networks.memory.s5:S5",
    },
    "critic": {
        "tabular": "inner_loops.critics:TabularCritic",
        "network": "inner_loops.critics:NetworkCritic",
    },
    "multiplier": {"lagrangian": "inner_loops.constraints.multiplier:Multiplier"},
    "exploration": {"epsilon_greedy": "inner_loops.exploration:EpsilonGreedy"},
    "environment": {
        "grid_world": "inner_loops.environments.grid_world:GridWorld",
        "delayed_chain": "inner_loops.environments.delayed_chain:DelayedChain",
        "pendulum_swing_up": "inner_loops.environments.control.pendulum:PendulumSwingUp",
        "cart_pole_goal": "inner_loops.environments.control.cart_pole:CartPoleGoal",
        "point_goal": "inner_loops.environments.control.point:PointGoal",
        "gymnax": "inner_loops.environments.gymnax_adapter:GymnaxEnvironment",
        "observation_permutation": "inner_loops.environments.wrappers.permutations:ObservationPermutation",
        "action_permutation": "inner_loops.environments.wrappers.permutations:ActionPermutation",
        "observation_projection": "inner_loops.environments.wrappers.projections:ObservationProjection",
        "action_projection": "inner_loops.environments.wrappers.projections:ActionProjection",
        "sticky_actions": "inner_loops.environments.wrappers.sticky_actions:StickyActions",
        "costs": "inner_loops.environments.wrappers.costs:Costs",
        "episode_statistics": "inner_loops.environments.wrappers.episode_statistics:EpisodeStatistics",
    },
    "tasks": {
        "grid_worlds": "inner_loops.tasks.grid_worlds:GridWorlds",
        "delayed_chains": "inner_loops.tasks.delayed_chains:DelayedChains",
        "pendulum_swing_ups": "inner_loops.tasks.control_tasks:PendulumTasks",
        "cart_pole_goals": "inner_loops.tasks.control_tasks:CartPoleGoalTasks",
        "point_goals": "inner_loops.tasks.control_tasks:PointGoalTasks",
        "gymnax_tasks": "inner_loops.tasks.gymnax_tasks:GymnaxTasks",
        "hyperparameter_bandit": "inner_loops.tasks.hyperparameter_bandit:HyperparameterBandit",
        "wrapped_tasks": "inner_loops.tasks.wrapped_tasks:WrappedTasks",
    },
}

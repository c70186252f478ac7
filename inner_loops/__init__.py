"""Learners and what they are made of; the catalogue maps a name to where its class lives."""

__all__ = ["CATALOGUE"]

CATALOGUE: dict[str, dict[str, str]] = {
    "inner": {
        "actor_critic": "inner_loops.actor_critic:ActorCritic",
        "ppo": "inner_loops.ppo:PPO",
        "recurrent_ppo": "inner_loops.recurrent_ppo:RecurrentPPO",
        "dqn": "inner_loops.dqn:DQN",
        "d4pg": "inner_loops.d4pg:D4PG",
        "q_learning": "inner_loops.q_learning:QLearning",
        "datarater": "inner_loops.datarater:DataRater",
        "in_context": "inner_loops.in_context:InContext",
    },
    "agent": {
        "symla": "inner_loops.agents.symla:SymLA",
        "meta_rnn": "inner_loops.agents.meta_rnn:MetaRNN",
        "thompson": "inner_loops.agents.bandits:ThompsonSampling",
        "ucb1": "inner_loops.agents.bandits:UCB1",
        "uniform": "inner_loops.agents.bandits:Uniform",
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
    "exploration": {"epsilon_greedy": "inner_loops.exploration:EpsilonGreedy"},
    "environment": {
        "grid_world": "inner_loops.environments.grid_world:GridWorld",
        "delayed_chain": "inner_loops.environments.delayed_chain:DelayedChain",
        "bernoulli_bandit": "inner_loops.environments.bernoulli_bandit:BernoulliBandit",
        "hearts_and_traps": "inner_loops.environments.hearts_and_traps:HeartsAndTraps",
        "gymnax": "inner_loops.environments.gymnax_adapter:GymnaxEnvironment",
        "observation_permutation": "inner_loops.environments.wrappers.permutations:ObservationPermutation",
        "action_permutation": "inner_loops.environments.wrappers.permutations:ActionPermutation",
        "observation_projection": "inner_loops.environments.wrappers.projections:ObservationProjection",
        "action_projection": "inner_loops.environments.wrappers.projections:ActionProjection",
        "observation_scale": "inner_loops.environments.wrappers.observation_scale:ObservationScale",
        "terminal_reward": "inner_loops.environments.wrappers.terminal_reward:TerminalReward",
        "sticky_actions": "inner_loops.environments.wrappers.sticky_actions:StickyActions",
        "costs": "inner_loops.environments.wrappers.costs:Costs",
        "episode_statistics": "inner_loops.environments.wrappers.episode_statistics:EpisodeStatistics",
    },
    "tasks": {
        "grid_worlds": "inner_loops.tasks.grid_worlds:GridWorlds",
        "delayed_chains": "inner_loops.tasks.delayed_chains:DelayedChains",
        "bernoulli_bandits": "inner_loops.tasks.bernoulli_bandits:BernoulliBandits",
        "heart_trap_grids": "inner_loops.tasks.heart_trap_grids:HeartTrapGrids",
        "gymnax_tasks": "inner_loops.tasks.gymnax_tasks:GymnaxTasks",
        "hyperparameter_bandit": "inner_loops.tasks.hyperparameter_bandit:HyperparameterBandit",
        "wrapped_tasks": "inner_loops.tasks.wrapped_tasks:WrappedTasks",
        "taught_by_examples": "inner_loops.tasks.taught_by_examples:TaughtByExamples",
    },
    "model": {
        "language_model": "inner_loops.language_model:LanguageModel",
        "classifier": "inner_loops.models:Classifier",
    },
    "rater": {
        "transformer": "inner_loops.raters:TransformerRater",
        "feature": "inner_loops.raters:FeatureRater",
    },
    "selection": {
        "softmax": "inner_loops.selections:Softmax",
        "everything": "inner_loops.selections:Everything",
        "top_rated": "inner_loops.selections:TopRated",
        "random_discard": "inner_loops.selections:RandomDiscard",
        "least_perplexing": "inner_loops.selections:LeastPerplexing",
        "least_corrupted": "inner_loops.selections:LeastCorrupted",
    },
    "stream": {
        "text": "inner_loops.data.text:TextStream",
        "noisy_digits": "inner_loops.data.labelled:NoisyDigits",
    },
    "corpus": {
        "python": "inner_loops.data.corpora:PythonCorpus",
        "files": "inner_loops.data.corpora:FileCorpus",
    },
    "tokenizer": {
        "bytes": "inner_loops.data.tokenizers:Bytes",
        "byte_pairs": "inner_loops.data.tokenizers:BytePairs",
    },
    "corruption": {
        "unigram_noise": "inner_loops.data.corruptions:UnigramNoise",
        "shuffled_lines": "inner_loops.data.corruptions:ShuffledLines",
        "repetition": "inner_loops.data.corruptions:Repetition",
        "boilerplate": "inner_loops.data.corruptions:Boilerplate",
        "foreign_script": "inner_loops.data.corruptions:ForeignScript",
        "chain": "inner_loops.data.corruptions:Chain",
    },
}

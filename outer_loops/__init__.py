"""What moves the meta-parameters; the catalogue maps a name to where its class lives."""

__all__ = ["CATALOGUE"]

CATALOGUE: dict[str, dict[str, str]] = {
    "outer": {
        "meta_gradient": "outer_loops.meta_gradient:MetaGradient",
        "evolution_strategy": "outer_loops.evolution_strategy:EvolutionStrategy",
        "persistent_evolution": "outer_loops.persistent_evolution:PersistentEvolution",
        "population_based": "outer_loops.population_based:PopulationBased",
        "fixed": "outer_loops.fixed:Fixed",
    },
}

"""The benchmark of evolution compares programs that do the same work."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.evolution import CASES, Program, ask_and_tell, evosax_generation, metalab_generation, row_of

KEY = jax.random.key(3)


def test_a_row_states_medians_by_generation_and_ratios_of_cpu_time() -> None:
    def program(cpu: float, wall: float) -> Program:
        return Program([wall, wall, 2 * wall], [cpu, cpu, 3 * cpu], 5.0, 0.5)

    programs = {"metalab": program(0.4, 0.2), "evosax": program(0.2, 0.2), "ask and tell": program(0.02, 0.1)}
    row = row_of("meta_rnn", CASES["meta_rnn"](), programs, lives=8, generations=2)
    # 8 lives x 10 updates x 10 steps in 100 ms; 400 ms of CPU in two generations against 200 and 20.
    assert row[0] == "meta_rnn"
    assert int(row[1]) > 1000
    assert row[2:7] == ["100.0 (100.0-200.0)", "0.01", "200.0 (200.0-600.0)", "100.0 (100.0-300.0)", "2.00"]
    assert row[7:] == ["10.00 (10.00-30.00)", "5.0", "5.0", "5.0", "0.500", "0.500"]


@pytest.mark.slow
def test_both_generations_move_the_mean_and_find_the_same_fitness() -> None:
    case = CASES["meta_rnn"]()
    found = {}
    for name, (state, generation) in {
        "metalab": metalab_generation(case, 8, 64),
        "evosax": evosax_generation(case, 8, 64),
    }.items():
        after, fitness = jax.jit(generation)(state, KEY)
        before, now = (getattr(search, "search", search).mean for _, search in (state, after))
        assert float(jnp.max(jnp.abs(now - before))) == pytest.approx(0.02, rel=0.05)  # Adam's first step
        found[name] = float(fitness)
    # Newborn agents pull at random: half a point a pull, on 64 bandits of spread 0.15 give or take 0.02.
    np.testing.assert_allclose(list(found.values()), 0.5, atol=0.08)
    state, generation = ask_and_tell(case, 8)
    after, _ = jax.jit(generation)(state, KEY)
    assert float(jnp.max(jnp.abs(after.mean - state.mean))) == pytest.approx(0.02, rel=0.05)

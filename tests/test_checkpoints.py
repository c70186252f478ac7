from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalab import devices
from metalab.checkpoints import CheckpointMismatch, Checkpoints

LANES = 4


class State(NamedTuple):
    weights: Any
    key: Any
    nothing: Any
    empty: Any


def state(offset: float = 0.0) -> State:
    made = State(
        weights={"w": jnp.arange(8.0).reshape(LANES, 2) + offset},
        key=jax.random.split(jax.random.key(3), LANES),
        nothing=(),
        empty=jnp.zeros((LANES, 0)),
    )
    return devices.place(made, devices.lane_mesh())


def template(of: State) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), of)


def test_what_is_restored_is_what_was_saved_where_it_lay(tmp_path: Path) -> None:
    saved = state()
    Checkpoints(tmp_path).save(7, saved, {"points": ["a"]})
    again = Checkpoints(tmp_path)
    found = again.restore(7, template(saved), {"points": ["a"]})
    assert isinstance(found, State)
    np.testing.assert_array_equal(found.weights["w"], saved.weights["w"])
    np.testing.assert_array_equal(jax.random.key_data(found.key), jax.random.key_data(saved.key))
    assert found.empty.shape == (LANES, 0)
    assert found.weights["w"].sharding.is_equivalent_to(saved.weights["w"].sharding, 2)


def test_the_one_that_counts_is_kept_whatever_came_after_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for serial in (1, 2, 3):
        checkpoints.save(serial, state(serial), {})
    again = Checkpoints(tmp_path)
    again.keep_only(2)  # 3 was written and never committed
    assert [int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()] == [2]
    assert float(again.restore(2, template(state()), {}).weights["w"][0, 0]) == 2.0
    again.save(3, state(30), {})
    assert float(again.restore(3, template(state()), {}).weights["w"][0, 0]) == 30.0


def test_another_programs_checkpoint_is_refused_by_the_leafs_name(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(1, state(), {})
    wider = state()._replace(weights={"w": jnp.zeros((LANES, 3))})
    with pytest.raises(
        CheckpointMismatch, match=r"\.weights\['w'\] is \[\[4, 2\], 'float32'\].*needs \[\[4, 3\]"
    ):
        Checkpoints(tmp_path).restore(1, template(wider), {})


def test_other_points_are_refused(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(1, state(), {"points": ["a"]})
    with pytest.raises(CheckpointMismatch, match=r"points is \['a'\], this sweep has \['b'\]"):
        Checkpoints(tmp_path).restore(1, template(state()), {"points": ["b"]})


def test_a_checkpoint_that_was_cut_short_is_in_nobodys_way(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(1, state(), {})
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    again = Checkpoints(tmp_path)
    again.keep_only(1)
    again.save(2, state(5), {})
    assert float(again.restore(2, template(state()), {}).weights["w"][0, 0]) == 5.0

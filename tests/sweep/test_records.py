from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import stats

from metalab.sweep.records import (
    digest_of,
    evaluation_frame,
    interval,
    interval_rows,
    load_meta_params,
    over_seeds,
    save_meta_params,
    series_frame,
)


def test_interval_by_hand() -> None:
    # 1, 2, 3: mean 2, standard deviation 1, t(0.975, 2) = 4.302653; half width 4.302653 / sqrt(3) = 2.484138
    mean, low, high = interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert low == pytest.approx(2 - 2.484138, abs=1e-6)
    assert high == pytest.approx(2 + 2.484138, abs=1e-6)
    assert interval([5.0]) == (5.0, None, None)


@pytest.mark.parametrize("seeds", range(1, 14))
def test_the_interquartile_mean_is_scipys(seeds: int) -> None:
    values = np.random.default_rng(seeds).normal(size=seeds)
    assert over_seeds(values, "iqm") == pytest.approx(stats.trim_mean(values, 0.25), rel=1e-12)


def test_one_seed_stores_no_bounds() -> None:
    assert interval_rows("a", 3, [1.0]) == [("a", 3, 1.0)]
    assert [row[0] for row in interval_rows("a", 3, [1.0, 2.0])] == ["a", "a_low", "a_high"]


def test_over_seeds() -> None:
    values = [0.0, 1.0, 2.0, 9.0]
    found = {how: over_seeds(values, how) for how in ("mean", "median", "iqm", "min")}
    assert found == {"mean": 3.0, "median": 1.5, "iqm": 1.5, "min": 0.0}
    with pytest.raises(ValueError, match="got 'max', expected mean, median, iqm or min"):
        over_seeds(values, "max")


def test_series_frame_is_long() -> None:
    frame = series_frame({"loss": (np.array([1, 2]), np.array([[0.1, 0.2], [0.3, 0.4]]))})
    assert frame.to_dict("list") == {
        "seed": [0, 0, 1, 1],
        "step": [1, 2, 1, 2],
        "metric": ["loss"] * 4,
        "value": [0.1, 0.2, 0.3, 0.4],
    }


def test_evaluation_frame_names_seed_task_and_age() -> None:
    values = np.arange(8.0).reshape(2, 2, 2)
    frame = evaluation_frame("train", {"return": values}, [100, 50], np.array([0, 5]), 4)
    row = frame[frame["value"] == 7.0].iloc[0]
    assert (row["seed"], row["task"], row["update"], row["env_steps"], row["outer_step"]) == (1, 1, 5, 20, 50)


def test_meta_params_come_back_and_a_changed_file_does_not(tmp_path: Path) -> None:
    meta = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "deep": {"b": np.ones(2, np.float32)}}
    save_meta_params(tmp_path, meta, {"outer_steps": [1, 2]})
    template = {
        "w": jax.ShapeDtypeStruct((3,), np.float32),
        "deep": {"b": jax.ShapeDtypeStruct((), np.float32)},
    }
    found = load_meta_params(tmp_path, template)
    np.testing.assert_array_equal(found["w"], meta["w"])
    with pytest.raises(ValueError, match=r"has no \['v'\]"):
        load_meta_params(tmp_path, {"v": jax.ShapeDtypeStruct((), np.float32)})
    with pytest.raises(ValueError, match=r"\['w'\] is float32\[3\], this inner loop needs float32\[4\]"):
        load_meta_params(tmp_path, {"w": jax.ShapeDtypeStruct((4,), np.float32)})
    file = tmp_path / "meta_params.npz"
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(ValueError, match="its sha256 differs"):
        load_meta_params(tmp_path, template)


def test_digests_do_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1}) != digest_of({"a": 1, "b": [3]})

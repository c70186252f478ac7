"""What hyperparameters are tuned to stands in every report of a sweep that exposes any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.figures import pictures
from analysis.frames import load_sweep
from analysis.plots.tuning import exposed_names, tuned_table
from analysis.report import write_report
from analysis.sections import sections
from tests.analysis.conftest import LAST_STEP, SEEDS, rising

STEPS = np.arange(1, LAST_STEP + 1)
RATE = "optimizer.learning_rate"


def series(curves: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Metric to its mean over seeds [LAST_STEP]; seed s has 1 + 0.01 (s - 1) times it."""
    frames = []
    for metric, curve in curves.items():
        values = curve * (1.0 + 0.01 * (np.arange(SEEDS) - 1.0))[:, None]
        seed, column = (part.reshape(-1) for part in np.indices(values.shape))
        columns = {"seed": seed, "step": column + 1, "metric": metric}
        frames.append(pd.DataFrame(columns | {"value": values.reshape(-1)}))
    return pd.concat(frames, ignore_index=True)


def tuned_sweep(new_store: Callable[..., Any], root: Path, curves: Mapping[str, np.ndarray]) -> Any:
    writer = new_store(root)
    scores = {"train/score": np.linspace(0.0, 0.9, LAST_STEP), "train/loss": np.ones(LAST_STEP)}
    run_id = writer.point(0, {"a": 1.0}, {"train": rising(0.9)}, 0.9)
    writer.frame(run_id, "series.parquet", series({**scores, **curves}))
    settings = pd.DataFrame({f"inner.{RATE}": [10.0, 40.0], "inner.kind": ["x", "y"], "score": [0.3, 0.9]})
    writer.baseline("best_fixed", {"train": rising(0.8)}, settings)
    return load_sweep(root, "demo", drawn_only=True)


@pytest.fixture(scope="module")
def tuned(new_store: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A discount that rises from 0.9 to 0.98, and a step size that grows a hundredfold to 50."""
    curves = {
        "train/inner/meta/discount": np.linspace(0.9, 0.98, LAST_STEP),
        f"train/inner/meta/{RATE}": np.geomspace(0.5, 50.0, LAST_STEP),
        "train/inner/policy_entropy": np.ones(LAST_STEP),
    }
    return tuned_sweep(new_store, tmp_path_factory.mktemp("tuned"), curves)


def test_a_panel_for_each_value_with_the_best_fixed_setting(tuned: Any):
    assert exposed_names(tuned) == ["discount", RATE]
    discount, rate = pictures(tuned)["tuned_values"].static.axes
    assert [axes.get_yscale() for axes in (discount, rate)] == ["linear", "log"]
    line: Any = discount.lines[0]
    np.testing.assert_allclose(line.get_xydata(), np.stack([STEPS, np.linspace(0.9, 0.98, LAST_STEP)], 1))
    assert len(discount.collections) == 1  # the band over seeds
    rule: Any = rate.lines[-1]
    assert (rule.get_label(), list(rule.get_ydata())) == ("best setting of best_fixed", [40.0, 40.0])


def test_the_table_has_first_and_last_values_over_seeds(tuned: Any):
    table: Any = tuned_table(tuned).set_index("hyperparameter")
    assert table.loc["discount", "first"] == pytest.approx(0.9)
    assert table.loc["discount", "last"] == pytest.approx(0.98)
    # t with 2 degrees of freedom is 4.3027; the deviation over seeds is 0.01 of the value
    reach = 4.302653 * 0.0098 / np.sqrt(3)
    assert table.loc["discount", "last_low"] == pytest.approx(0.98 - reach, rel=1e-6)
    assert table.loc["discount", "last_high"] == pytest.approx(0.98 + reach, rel=1e-6)
    assert np.isnan(table.loc["discount", "best setting of best_fixed"])
    assert table.loc[RATE, "best setting of best_fixed"] == 40.0


def test_the_report_shows_them_beside_the_learning_curves(tuned: Any):
    page = write_report(tuned.root, "demo")
    assert (page.parent / "figures" / "tuned_values.png").is_file()
    assert (page.parent / "tables" / "tuned.csv").is_file()
    (section,) = [one for one in sections(tuned) if one.name == "learning_curves"]
    (table,) = section.tables
    assert table.rows[1][:2] == [RATE, "0.5"] and table.rows[1][4] == "40"
    assert [picture.name for picture in section.pictures] == ["learning_curves", "tuned_values"]


def test_a_population_is_its_median_and_its_quantiles(new_store: Callable[..., Any], tmp_path: Path):
    ramp = np.linspace(1.0, 2.0, LAST_STEP)
    levels = {"": 1.1, "/low": 0.5, "/median": 1.0, "/high": 3.0}
    curves = {f"train/inner/meta/clip{end}": level * ramp for end, level in levels.items()}
    data = tuned_sweep(new_store, tmp_path, curves)
    assert exposed_names(data) == ["clip"]
    picture = pictures(data)["tuned_values"]
    assert "10 % to 90 % of the members" in picture.caption
    (axes,) = picture.static.axes
    median: Any = axes.lines[0]
    band: Any = axes.collections[0].get_paths()[0]
    np.testing.assert_allclose(median.get_ydata(), ramp)
    assert band.vertices[:, 1].min() == pytest.approx(0.5) and band.vertices[:, 1].max() == pytest.approx(6.0)
    assert tuned_table(data)["last"].item() == pytest.approx(2.2)


def test_without_exposed_values_there_is_nothing(demo: Path):
    data = load_sweep(demo, "demo")
    assert exposed_names(data) == [] and tuned_table(data).empty
    assert "tuned_values" not in pictures(data)

"""A sweep's tables in files: complete, tidy, and readable by anything that reads Parquet or CSV."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.export import export_sweep
from analysis.frames import load_sweep
from metalab.errors import MetalabError
from tests.analysis.conftest import LAST_STEP, RATE


def read(path: Path) -> Any:
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


@pytest.fixture(scope="module", params=["parquet", "csv"])
def tables(
    request: pytest.FixtureRequest, demo: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("exported") / "deep" / "down"
    written = export_sweep(demo, "demo", folder, request.param)
    found = {path.stem: read(path) for path, _ in written}
    assert {path.stem: rows for path, rows in written} == {name: len(one) for name, one in found.items()}
    assert {path.name for path in folder.iterdir()} == {path.name for path, _ in written}
    return found


def test_points_are_one_row_each(tables: dict[str, Any]) -> None:
    points = tables["points"]
    assert list(points.columns)[:6] == ["number", "status", "reason", "steps", "objective", RATE]
    assert points.columns[-1] == "run_id"
    assert list(points["number"]) == list(range(6))
    assert list(points["status"])[2:] == ["finished", "failed", "pruned", "diverged"]
    assert points["steps"].isna().tolist() == [False, False, False, True, False, False]
    assert points["steps"].dropna().tolist() == [LAST_STEP] * 3 + [20, 20]
    assert points["objective"].dropna().tolist() == [0.6, 0.95, 0.45]
    assert points[RATE].tolist() == [1e-4, 1e-3, 1e-2, 0.1, 0.05, 0.5]


def test_series_are_those_of_the_points(tables: dict[str, Any], demo: Path) -> None:
    series = tables["series"]
    assert list(series.columns) == ["point", "seed", "step", "metric", "value"]
    data = load_sweep(demo, "demo")
    assert len(series) == len(data.series)
    assert sorted(series["point"].unique()) == [0, 1, 2, 4, 5]
    mine = data.series[data.series["label"] == "point 1"]
    assert series.loc[series["point"] == 1, "value"].tolist() == pytest.approx(mine["value"].tolist())


def test_evaluations_and_baselines(tables: dict[str, Any]) -> None:
    evaluations, baselines = tables["evaluations"], tables["baselines"]
    assert list(evaluations.columns)[:4] == ["point", "baseline", "seed", "set"]
    of_points = evaluations["point"].notna()
    assert sorted(evaluations.loc[of_points, "point"].unique()) == [0, 1, 2]
    assert set(evaluations.loc[~of_points, "baseline"]) == {"a2c", "optimal", "random", "untrained"}
    assert list(baselines["name"]) == ["a2c", "floor", "optimal", "random", "untrained"]
    floor = baselines.set_index("name")["final/held_out/steps_to_threshold"]
    assert (floor["floor"], floor.isna().sum()) == (640.0, 4)


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_sweep_without_results_has_empty_tables(
    form: str, new_store: Callable[..., Any], tmp_path: Path
) -> None:
    new_store(tmp_path)
    written = export_sweep(tmp_path, "demo", tmp_path / "out", form)
    assert [rows for _, rows in written] == [0, 0, 0, 0]
    assert list(read(tmp_path / "out" / f"series.{form}").columns) == [
        "point",
        "seed",
        "step",
        "metric",
        "value",
    ]


def test_what_cannot_be_exported_or_written(demo: Path, tmp_path: Path) -> None:
    with pytest.raises(MetalabError, match=r"no sweep named 'demmo'"):
        export_sweep(demo, "demmo", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(MetalabError, match=r"--to: .*file cannot be written"):
        export_sweep(demo, "demo", tmp_path / "file")

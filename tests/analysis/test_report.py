from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.figures import pictures
from analysis.frames import load_sweep
from analysis.plots.hyperparameters import dimensions, importances
from analysis.plots.panels import thinned
from analysis.report import write_report
from analysis.sections import SECTIONS, sections
from analysis.tables import Table, markdown, number, with_interval
from tests.analysis.conftest import LAST_STEP, evaluation_frame, rising

RATE = "outer.optimizer.learning_rate"
HOSTILE = "<script>alert('x')</script> $a_b$ | b"


class Page(HTMLParser):
    """What of a page a browser would fetch, run or show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] not in (["script"], ["style"]):
            self.text.append(data)


@pytest.fixture(scope="module")
def written(demo: Path) -> Path:
    return write_report(demo, "demo")


@pytest.fixture(scope="module")
def page(written: Path) -> str:
    return written.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_every_section_has_something_to_say_of_any_sweep(name: str, demo: Path):
    section = SECTIONS[name](load_sweep(demo, "demo"))
    assert section.words or section.tables or section.pictures


def test_files(written: Path, demo: Path):
    folder = demo / "demo" / "report"
    assert written == folder / "report.html"
    figures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert figures == {
        "learning_curves", "held_out", "in_life_curves", "performance_profiles", "search", "hyperparameters",
        "cost",
    }  # fmt: skip
    tables = {path.stem for path in (folder / "tables").glob("*.csv")}
    assert tables == {
        "headline", "changes", "thresholds", "score_lpg", "normalised", "points", "settings_a2c", "cost",
        "differences", "unfinished", "broken_seeds",
    }  # fmt: skip


def test_csv_has_all_digits(written: Path):
    table = pd.read_csv(written.parent / "tables" / "headline.csv")
    best = table[(table["set"] == "held_out") & (table["method"] == "best")].iloc[0]
    assert best["ratio"] == pytest.approx(0.99 / 0.84, rel=1e-12)
    settings = pd.read_csv(written.parent / "tables" / "settings_a2c.csv")
    assert list(settings["score"]) == [0.9, 0.5, 0.3]


def test_the_page_needs_nothing_else(page: str):
    addresses = Page(page).addresses
    assert addresses
    outside = [a for a in addresses if not a.startswith(("#", "data:", "figures/", "tables/"))]
    assert outside == []
    assert "@import" not in page.split("</style>")[0]
    # plotly's own code stands in the page once.
    assert page.count("<script>/**") == 1


def test_the_page_says_what_was_run(page: str, demo: Path):
    text = " ".join(Page(page).text)
    for wanted in (
        "Does a learned rule beat a tuned one?",
        f"metalab sweep {demo / 'demo' / 'sweep.yaml'}",
        "0123abcd with uncommitted changes",
        "jax 0.10.2",
        "A processor, 2 cores, 8 GiB",
        "best point (point 1)",
        "0.990 [",
        "3 x 4",
        "point 2",
        "are not finite from this outer step on",
        "640 steps on",
        "6 points: 3 finished, 1 pruned, 1 diverged, 1 failed; 3 seeds each; 5 baselines",
        "by median at step 20",
        "MemoryError: no memory",
        "2023-11-14 22:13 UTC",
        "seeds 2 -> 3",
    ):
        assert wanted in text, wanted


def test_markdown_says_the_same(written: Path):
    text = (written.parent / "report.md").read_text(encoding="utf-8")
    assert "| **held_out** | **best point (point 1)** | **0.990 [" in text
    assert "![Learning within a life](figures/in_life_curves.png)" in text


def test_the_report_is_attached(written: Path, demo: Path):
    parent = load_sweep(demo, "demo").parent_id
    (attached,) = (demo / "artifacts").glob(f"**/{parent}/artifacts/report/report.html")
    assert attached.read_bytes() == written.read_bytes()


def test_a_hostile_name_is_text_everywhere(new_store: Callable[..., Any], tmp_path: Path):
    writer = new_store(tmp_path, description=HOSTILE, report=[HOSTILE, "learning_curves", "held_out"])
    curve = np.minimum(np.linspace(0, 2, 9), 1) * np.ones((2, 3, 1))
    sets = {"train": curve, "held_out": curve}
    writer.point(0, {RATE: HOSTILE}, sets, 0.9)
    writer.point(1, {RATE: "plain"}, sets, 0.8)
    writer.baseline(HOSTILE, {name: 0.5 * values for name, values in sets.items()})
    path = write_report(tmp_path, "demo")
    page = path.read_text(encoding="utf-8")
    parsed = Page(page)
    assert HOSTILE in " ".join(parsed.text)
    assert "<script>alert" not in page
    # A name inside plotly's JSON can neither end its script element nor become a tag in a legend.
    assert page.count("</script>") == parsed.tags.count("script")
    report = (path.parent / "report.md").read_text(encoding="utf-8")
    assert "<script>" not in report
    for line in report.splitlines():
        if "alert" in line and line.startswith("|"):
            assert "\\| b" in line


def test_an_empty_sweep_degrades_in_words(new_store: Callable[..., Any], tmp_path: Path):
    new_store(tmp_path)
    page = write_report(tmp_path, "demo").read_text(encoding="utf-8")
    text = " ".join(Page(page).text)
    for wanted in (
        "No finished point has a finite objective yet",
        "No evaluation was stored",
        "No series was stored",
        "No dimension with more than one value was searched",
        "The engine noted no times",
        "not noted",
    ):
        assert wanted in text, wanted
    assert "plotly" not in page


def files_of(page: Path) -> dict[str, bytes]:
    """All of a report: the same store gives the same bytes."""
    folder = page.parent
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_one_seed_without_baselines_is_repeatable_and_degrades_in_words(
    new_store: Callable[..., Any], tmp_path: Path
):
    writer = new_store(tmp_path, seeds=1)
    curve = np.minimum(np.linspace(0, 2, 9), 1) * np.ones((1, 1, 1))
    writer.point(0, {}, {"train": curve}, 0.9)
    path = write_report(tmp_path, "demo")
    first = files_of(path)
    assert "figures/in_life_curves.png" in first
    stale = path.parent / "figures" / "of_an_earlier_report.png"
    stale.touch()
    text = " ".join(Page(write_report(tmp_path, "demo").read_text(encoding="utf-8")).text)
    assert files_of(path) == first
    for wanted in (
        "There is no tuned baseline, so no ratio can be given",
        "none: one seed, one task",
        "Normalised scores need both",
        "The points have one configuration",
        "Nothing: all 1 runs finished",
    ):
        assert wanted in text, wanted


def test_meta_tests_have_their_section(new_store: Callable[..., Any], tmp_path: Path):
    writer = new_store(tmp_path, report=["cost"])
    run_id = writer.point(0, {}, {"train": np.ones((3, 2, 4))}, 0.9)
    writer.log(run_id, [("final/catch/return", 40, 0.25), ("final/catch/return_low", 40, 0.1)])
    writer.log(run_id, [("final/catch/return_high", 40, 0.4), ("final/train/return", 40, 1.0)])
    found = {section.name: section for section in sections(load_sweep(tmp_path, "demo"))}
    (table,) = found["meta_test"].tables
    assert [list(row) for row in table.rows] == [["catch", "point 0", "return", "0.250 [0.100, 0.400]", "3"]]
    assert set(found) == {"headline", "system", "cost", "meta_test", "points", "unfinished"}


def test_a_few_points_stand_side_by_side(new_store: Callable[..., Any], tmp_path: Path):
    agent = "inner.agent"
    writer = new_store(tmp_path, report=["cost"], search={agent: "choice(symla, meta_rnn)"})
    sets = {"train": np.ones((3, 2, 4)), "held_out": np.ones((3, 2, 4))}
    for index, kind in enumerate(("symla", "meta_rnn")):
        run_id = writer.point(index, {agent: kind}, sets, 0.9)
        writer.log(run_id, [("final/train/regret", 40, index + 2.5)])
        if index == 0:  # the other point lived there, but has no regret to tell of it
            writer.log(run_id, [("final/held_out/regret", 40, 3.0), ("final/held_out/regret_low", 40, 2.0)])
            writer.log(run_id, [("final/held_out/regret_high", 40, 4.0)])
    writer.point(2, {agent: "symla"}, sets, 0.5, "PRUNED")
    writer.baseline("thompson", sets, metrics=[("final/train/regret", 0, 2.0)])
    found = {section.name: section for section in sections(load_sweep(tmp_path, "demo"))}
    (table,) = found["side_by_side"].tables
    assert list(table.columns) == ["", "held_out", "train"]  # the set that chose comes last
    assert [list(row) for row in table.rows] == [
        ["point 0 (symla)", "3.000 [2.000, 4.000]", "2.500"],
        ["point 1 (meta_rnn)", "-", "3.500"],
        ["thompson", "-", "2.000"],
    ]


def search_store(new_store: Callable[..., Any], root: Path) -> Any:
    """Twelve points of three dimensions, of which only `a` matters."""
    writer = new_store(root, search={"a": "interval(0, 1)", "b": "choice(2, 4)", "c": "choice(gru, lstm)"})
    generator = np.random.default_rng(0)
    for index in range(12):
        values = {
            "a": index / 11,
            "b": int(generator.choice([2, 4])),
            "c": str(generator.choice(["gru", "lstm"])),
        }
        writer.point(index, values, {}, index / 11)
    return load_sweep(root, "demo")


def test_hyperparameter_pictures(new_store: Callable[..., Any], tmp_path: Path):
    data = search_store(new_store, tmp_path)
    found = {one.key: one for one in dimensions(data)}
    assert found["a"].categories is None
    assert found["b"].categories == ("2", "4")
    assert found["c"].categories == ("gru", "lstm")
    assert found["a"].rows.tolist() == list(range(12))
    shares = importances(data)
    assert max(shares, key=lambda key: shares[key]) == "a"
    assert sum(shares.values()) == pytest.approx(1.0)
    drawn = pictures(data)
    assert {"hyperparameters", "parallel_coordinates", "importance", "learning_curves"} <= set(drawn)
    # Every point's line is in the parallel coordinates.
    assert len(drawn["parallel_coordinates"].static.axes[0].lines) == 12 + 3


def test_a_key_that_a_condition_leaves_unset_has_a_panel_of_its_own_points(
    new_store: Callable[..., Any], tmp_path: Path
):
    writer = new_store(tmp_path, search={"a": "interval(0, 1)", "b": "choice(2, 4)", "c": {"search": "..."}})
    for index in range(12):
        own = {"c": index / 10} if index % 2 else {}
        writer.point(index, {"a": index / 11, "b": 2 + 2 * (index % 3 == 0), **own}, {}, index / 11)
    data = load_sweep(tmp_path, "demo")
    found = {one.key: one for one in dimensions(data)}
    # The table is sorted by objective: the odd points stand at even places, 11 first.
    assert found["c"].rows.tolist() == [0, 2, 4, 6, 8, 10]
    assert found["c"].at.tolist() == pytest.approx([1.1, 0.9, 0.7, 0.5, 0.3, 0.1])
    assert set(importances(data)) == {"a", "b"}
    assert {"hyperparameters", "importance"} <= set(pictures(data))


def test_several_objectives_are_drawn(new_store: Callable[..., Any], tmp_path: Path):
    study = {"objective": ["evaluation/train/return", "train/score"], "direction": ["maximize", "minimize"]}
    writer = new_store(tmp_path, study=study, search={"a": "interval(0, 1)", "b": "choice(2, 4)"})
    for index in range(10):
        pair = (index / 10, float((index - 4) ** 2))
        writer.point(index, {"a": index / 9, "b": 2 + 2 * (index % 2)}, {}, 0.5, objective=pair)
    page = write_report(tmp_path, "demo")
    tables = {path.stem for path in (page.parent / "tables").glob("*.csv")}
    assert {"pareto", "points_0", "points_1"} <= tables
    # Beyond the fourth point the second objective is paid for the first.
    assert list(pd.read_csv(page.parent / "tables" / "pareto.csv")["point"]) == [
        f"point {n}" for n in range(9, 3, -1)
    ]
    drawn = pictures(load_sweep(tmp_path, "demo"))
    assert {"pareto", "hyperparameters", "importance"} <= set(drawn)
    assert "search" not in drawn
    assert len(drawn["hyperparameters"].static.axes) == 4
    assert [axes.get_title(loc="left") for axes in drawn["importance"].static.axes] == study["objective"]
    assert "No point is best in all of 2 objectives" in " ".join(Page(page.read_text()).text)


def test_the_search_as_it_went(demo: Path):
    drawn = pictures(load_sweep(demo, "demo"))["search"].static.axes[0]
    lines: Any = drawn.lines
    best = {tuple(point) for line in lines for point in line.get_xydata().tolist()}
    # The best was .6 until four points had ended.
    assert {(3.0, 0.6), (4.0, 0.6), (4.0, 0.95)} <= best


def test_curves_of_points_that_did_not_finish_end_early_and_thin(demo: Path):
    axes = pictures(load_sweep(demo, "demo"))["learning_curves"].static.axes[0]
    lines: dict[str, Any] = {str(line.get_label()): line for line in axes.lines}
    assert set(lines) == {"point 1", "point 0", "point 2", "pruned points", "diverged points"}
    for label in ("pruned points", "diverged points"):
        assert lines[label].get_xdata()[-1] == 20
        assert lines[label].get_linewidth() < lines["point 2"].get_linewidth()


def test_points_that_were_assessed_once_have_no_curve_of_it(demo: Path):
    data = load_sweep(demo, "demo")
    titles = [axes.get_title(loc="left") for axes in pictures(data)["learning_curves"].static.axes]
    assert titles == ["training score", "return on set train"]
    assessed = data.series["metric"] == "evaluation/train/return"
    last = data.series["step"] == data.series.loc[assessed, "step"].max()
    once = dataclasses.replace(data, series=data.series[~assessed | last])
    (axes,) = pictures(once)["learning_curves"].static.axes
    assert axes.get_title(loc="left") == "training score"


def test_baselines_are_told_apart_by_their_dashes(new_store: Callable[..., Any], tmp_path: Path):
    names = ("source", "uniform", "untrained", "optimal")
    writer = new_store(tmp_path)
    writer.point(0, {RATE: 1e-3}, {"train": rising(0.5)}, 0.5)
    for index, name in enumerate(names):
        writer.baseline(name, {"train": rising(0.1 * index)})
    drawn = pictures(load_sweep(tmp_path, "demo"))["learning_curves"].interactive
    dashes = {trace.name: trace.line.dash for trace in drawn.data if trace.name in names}
    assert dashes == {"source": "dash", "uniform": "dot", "untrained": "dashdot", "optimal": "longdash"}


def test_the_cost_tells_how_well_lanes_were_used(demo: Path, written: Path):
    table: Any = pd.read_csv(written.parent / "tables" / "cost.csv").set_index("what")["value"]
    assert table["lane use (steps of points / steps computed)"] == 300 / 400
    assert table["meta-updates per second (steps of points / seconds of running)"] == 300 / 60


@pytest.mark.parametrize("status", ["PRUNED", "DIVERGED", "FAILED", "KILLED"])
def test_a_sweep_of_which_nothing_finished(status: str, new_store: Callable[..., Any], tmp_path: Path):
    writer = new_store(tmp_path)
    writer.point(0, {RATE: 0.1}, {}, 0.4, status, steps=20)
    writer.point(1, {RATE: 0.2}, {}, 0.5, status, steps=10)
    text = " ".join(Page(write_report(tmp_path, "demo").read_text(encoding="utf-8")).text)
    assert f"2 points: 2 {status.lower()}" in text
    assert "No finished point has a finite objective yet" in text


def test_thinned_averages_neighbours():
    every, values = thinned(np.asarray([[1.0, 3.0, 5.0, 7.0, 9.0]]), most=3)
    assert every == 2
    np.testing.assert_array_equal(values, [[2.0, 6.0, 9.0]])


def test_numbers_as_text():
    assert [number(x) for x in (0.012345, 28816.0, 3, np.nan, None, True)] == [
        "0.01235", "28816", "3", "-", "-", "True",
    ]  # fmt: skip
    row = {"x": 1234.6, "x_low": 0.0004, "x_high": np.inf, "y": 0.5}
    assert with_interval(row, "x") == "1235"
    assert with_interval(row, "y") == "0.500"
    assert with_interval(row, "z") == "-"


def test_markdown_cells_hold_what_they_are_given():
    table = Table("t", "", ["a|b"], [["<b>\nx|y"]], pd.DataFrame(), strong=(0,))
    assert markdown(table).splitlines() == ["| a\\|b |", "| --- |", "| **&lt;b&gt; x\\|y** |"]


def test_analysis_never_imports_jax():
    modules = [
        ".".join(path.with_suffix("").parts)
        for path in sorted(Path("analysis").rglob("*.py"))
        if path.name != "__init__.py"
    ]
    code = f"import sys, {', '.join(modules)}; print('jax' in sys.modules, 'mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    source = "".join(path.read_text() for path in Path("analysis").rglob("*.py"))
    assert not re.search(r"^\s*(import|from) jax", source, re.MULTILINE)


def test_an_ablation_and_a_probe_stand_in_the_systems_table(new_store: Callable[..., Any], tmp_path: Path):
    # Only the points meet the ablated set: baselines have no y to make constant.
    names = ("train", "longer", "longer_constant_y")
    evaluation = {"select": "train", "sets": {name: {"threshold": 0.9} for name in names}}
    writer = new_store(tmp_path, evaluation=evaluation, search={})
    levels = {"train": 0.95, "longer": 0.95, "longer_constant_y": 0.55}
    sets = {name: rising(level) for name, level in levels.items()}
    frame = evaluation_frame(sets)
    ends = {
        "seed": range(3),
        "set": "longer",
        "task": 0,
        "outer_step": LAST_STEP,
        "update": 8,
        "env_steps": 2560,
    }
    values = {"prediction_r2": 0.84, "prediction_r2_untrained": 0.53, "prediction_r2_gain": 0.31}
    probed = [pd.DataFrame(ends | {"metric": key, "value": value}) for key, value in values.items()]
    run_id = writer.point(0, {}, sets, 0.95)
    writer.frame(run_id, "evaluation.parquet", pd.concat([frame, *probed]))
    writer.baseline("a2c", {name: rising(0.4) for name in ("train", "longer")})
    writer.baseline("floor", {}, metrics=[("final/longer/steps_to_threshold", LAST_STEP, 320.0)])
    (table,) = {part.name: part for part in sections(load_sweep(tmp_path, "demo"))}["system"].tables
    shown = {row[1]: row[2:4] for row in table.rows if row[0] == "longer"}
    assert list(shown) == [
        "return / a2c's return",
        "a2c's steps to 0.9 / its steps",
        "its steps to 0.9 / the floor",
        "meta-seeds that reach 0.9",
        "return when y is constant",
        "return lost when y is constant",
        "R^2 of exact values from y",
        "R^2 of exact values from y, untrained rule",
        "R^2 gained by training",
    ]
    assert shown["return lost when y is constant"] == ["0.400 [0.400, 0.400]", "3 x 4"]
    assert shown["R^2 gained by training"] == ["0.310 [0.310, 0.310]", "3 x -"]
    assert "longer_constant_y" not in {row[0] for row in table.rows}
    page = write_report(tmp_path, "demo").read_text(encoding="utf-8")
    assert "return lost when y is constant" in page

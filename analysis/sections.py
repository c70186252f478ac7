"""The report's sections: what is said, in which tables and pictures, and in words where there is nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import summaries
from analysis.frames import SweepData, records
from analysis.plots import cost, held_out, hyperparameters, learning
from analysis.plots.pictures import Picture
from analysis.systems import score_of, scoring_frame
from analysis.tables import Table, number, with_interval

__all__ = ["SECTIONS", "Section", "sections"]

MOST_ROWS = 50  # of a table on the page; the CSV file has all
_N = "n (seeds x tasks)"
_MOST_POINTS = 8  # columns of the table of differences


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the report.

    Attributes:
        name: anchor on the page.
        title: headline.
        words: paragraphs, before the tables.
        tables, pictures: in this order.
    """

    name: str
    title: str
    words: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()


def sections(data: SweepData) -> list[Section]:
    """The headline, the sections that the sweep file asks for, and what every report ends with."""
    asked = list(data.config.get("report") or SECTIONS)
    unknown = [str(name) for name in asked if name not in SECTIONS]
    found = [headline(data), system(data)]
    found += [SECTIONS[name](data) for name in asked if name in SECTIONS]
    if unknown:
        words = (
            f"The sweep file asks for what is not known: {', '.join(unknown)}. Known: {', '.join(SECTIONS)}."
        )
        found.append(Section("unknown", "Sections that are not known", [words]))
    found += [meta_test(data), points(data), failed(data)]
    return [section for section in found if section is not None]


def headline(data: SweepData) -> Section:
    """Evaluation sets by methods, with what it means in words."""
    table = summaries.headline_table(data, summaries.set_names(data))
    select = summaries.selection_set(data)
    objective, how = summaries.objective_of(data)
    words = [
        f"The best point is the one with the best `{objective}` ({how} over seeds). The set `{select}` chose "
        "meta-parameters and tuned baselines, which flatters them there."
    ]
    if summaries.best_point(data) is None:
        words = ["No finished point has a finite objective yet, so there is no best point to report."]
    if table.empty:
        return Section("headline", "Headline", [*words, "No evaluation was stored: there are no returns."])
    words += [line for row in records(table) if (line := _sentence(row, data))]
    if summaries.reference(data) is None:
        words.append("There is no tuned baseline, so no ratio can be given.")
    tables = [_headline(table, data)]
    thresholds = summaries.threshold_table(data, summaries.set_names(data))
    if not thresholds.empty:
        tables.append(_thresholds(thresholds, data))
    return Section("headline", "Headline", words, tables)


def system(data: SweepData) -> Section | None:
    """The system's own score; None: it has none, or there is nothing to score."""
    found = score_of(data.config)
    if found is None or data.evaluations.empty:
        return None
    name, score = found
    frame = score(scoring_frame(data))
    if frame.empty:
        return None
    rows = [
        [row["set"], row["quantity"], with_interval(row, "value"), _size(row), row["interval"]]
        for row in records(frame)
    ]
    columns = ["set", "quantity", "value [95 %]", _N, "interval"]
    caption = "Best point."
    return Section("system", f"System: {name}", [], [Table(f"score_{name}", caption, columns, rows, frame)])


def learning_section(data: SweepData) -> Section:
    """Learning curves of all points."""
    picture = learning.learning_curves(data)
    words = [] if picture else ["No series was stored, so there are no learning curves."]
    return Section("learning_curves", "Learning curves", words, (), [picture] if picture else [])


def held_out_section(data: SweepData) -> Section:
    """Lives on the evaluation sets, ends of life, normalised scores."""
    names = summaries.set_names(data)
    pictures = [
        held_out.held_out_returns(data, names),
        held_out.in_life_curves(data, names),
        held_out.profiles(data, names),
    ]
    shown = [picture for picture in pictures if picture is not None]
    words = [] if shown else ["No evaluation was stored, so there is nothing to draw."]
    normalised = summaries.normalised_table(data, names)
    if shown and normalised.empty:
        words.append(
            "Normalised scores need both `random` and `optimal` on a set, with the optimum above: left out."
        )
    tables = [_normalised(normalised)] if not normalised.empty else []
    return Section("held_out", "Evaluation sets", words, tables, shown)


def hyperparameter_section(data: SweepData) -> Section:
    """The objective against the search space, and the baselines' own searches."""
    tables = [_search_results(data)] if data.rows("point") else []
    tables += [_settings(name, frame) for name, frame in data.settings.items() if "score" in frame.columns]
    pictures = [
        hyperparameters.one_by_one(data),
        hyperparameters.parallel(data),
        hyperparameters.importance(data),
    ]
    words = []
    if pictures[0] is None:
        words.append("No dimension with more than one value was searched, so there is no picture of it.")
    elif pictures[2] is None:
        words.append(
            f"Importance needs at least {hyperparameters.ENOUGH} points with different objectives and two "
            "dimensions: left out."
        )
    return Section("hyperparameters", "Hyperparameters", words, tables, [p for p in pictures if p])


def cost_section(data: SweepData) -> Section:
    """Time and programs."""
    frame = cost.cost_table(data)
    rows = [[row["what"], number(row["value"])] for row in records(frame)]
    table = Table("cost", "Whole sweep, one measurement (n = 1).", ["what", "value"], rows, frame)
    picture = cost.cost_picture(data)
    words = [] if picture else ["The engine noted no times: the sweep has not ended yet."]
    return Section("cost", "Cost", words, [table], [picture] if picture else [])


def meta_test(data: SweepData) -> Section | None:
    """Suites that trained meta-parameters met afterwards; None: there were none."""
    frame = summaries.meta_test_table(data)
    if frame.empty:
        return None
    rows = [
        [row["suite"], row["label"], row["metric"], with_interval(row, "value"), number(row["n_seeds"])]
        for row in records(frame)
    ]
    caption = "Mean over n seeds; interval: 95 % Student t over seeds, as logged (none with one seed)."
    columns = ["suite", "run", "metric", "value [95 %]", "n seeds"]
    return Section("meta_test", "Meta-test", [], [Table("meta_test", caption, columns, rows, frame)])


def points(data: SweepData) -> Section:
    """In which parameters the points differ."""
    frame = summaries.config_differences(data)
    if frame.empty:
        return Section("points", "Differences between points", ["The points have one configuration."])
    labels = list(frame.columns)
    if len(labels) <= _MOST_POINTS:
        columns = ["parameter", *labels]
        rows = [[str(key), *(str(value) for value in values)] for key, *values in frame.itertuples()]
    else:
        columns = ["parameter", "different values", "values"]
        rows = [_summary(str(key), [str(v) for v in values]) for key, *values in frame.itertuples()]
    whole = frame.rename_axis("parameter").reset_index()
    caption = f"Parameters in which the {len(labels)} points differ; all others are equal."
    return Section(
        "points", "Differences between points", [], [Table("differences", caption, columns, rows, whole)]
    )


def failed(data: SweepData) -> Section:
    """Runs that did not finish and seeds that broke down."""
    frame = summaries.failures(data)
    if frame.empty:
        words = [f"None: all {len(data.runs)} runs finished and no training metric left the finite numbers."]
        return Section("failures", "Failures", words)
    rows = [[str(value) for value in row] for row in frame.itertuples(index=False)]
    caption = "Runs that have not finished, and seeds with their first outer step that is not finite."
    table = Table("failures", caption, ["run", "seed", "outer step", "what"], rows[:MOST_ROWS], frame)
    return Section("failures", "Failures", [], [table])


SECTIONS: dict[str, Callable[[SweepData], Section]] = {
    "learning_curves": learning_section,
    "held_out": held_out_section,
    "hyperparameters": hyperparameter_section,
    "cost": cost_section,
}


def _sentence(row: dict[str, Any], data: SweepData) -> str:
    """The result on one set in words; empty for rows other than the best point's."""
    if row["method"] != "best" or not np.isfinite(row["return"]):
        return ""
    text = f"On `{row['set']}` the {row['label']} returns {with_interval(row, 'return')}"
    base = summaries.reference(data)
    if base is not None and np.isfinite(row.get("ratio", np.nan)):
        text += f": {with_interval(row, 'ratio')} times {base.label}"
    return f"{text} (n = {_size(row)} seeds x tasks, {row['interval']})."


def _size(row: dict[str, Any]) -> str:
    return f"{number(row['n_seeds'])} x {number(row['n_tasks'])}"


def _headline(frame: pd.DataFrame, data: SweepData) -> Table:
    base = summaries.reference(data)
    name = base.key if base else "reference"
    kinds = list(dict.fromkeys(frame["interval"]))
    rows = []
    for row in records(frame):
        notes = [row["interval"]] if len(kinds) > 1 else []
        notes += [f"{row['left_out']} seeds broke down: left out"] if row["left_out"] else []
        cells = [row["set"], row["label"], with_interval(row, "return"), with_interval(row, "over_life")]
        cells += [with_interval(row, "ratio"), with_interval(row, "improves")] if base else []
        rows.append([*cells, _size(row), "; ".join(notes)])
    columns = ["set", "method", "return at end of life [95 %]", "return over life [95 %]"]
    columns += [f"ratio to {name} [95 %]", f"P(better than {name}) [95 %]"] if base else []
    over = f" Interval: {kinds[0]}." if len(kinds) == 1 else ""
    caption = (
        f"Means over seeds and tasks.{over} The end of life is the mean of the last three assessments. The "
        "ratio is of end-of-life means; its interval resamples tasks in pairs and seeds apart. With fewer "
        "than five seeds a bootstrap interval is narrower than its name: the CSV file also has the t "
        "interval over seeds."
    )
    columns.append(_N)
    if any(row[-1] for row in rows):
        columns.append("notes")
    else:
        rows = [row[:-1] for row in rows]
    return Table("headline", caption, columns, rows, frame, _strong(frame))


def _thresholds(frame: pd.DataFrame, data: SweepData) -> Table:
    base = summaries.reference(data)
    rows = []
    for row in records(frame):
        cells = [row["set"], number(row["threshold"]), row["label"], with_interval(row, "steps")]
        cells += [with_interval(row, "speedup")] if base else []
        success = f"{row['solved_seeds']}: {with_interval(row, 'success', 2)}"
        rows.append([*cells, f"{100 * row['censored']:.0f} %", success, _size(row)])
    columns = ["set", "threshold", "method", "environment steps to hold it [95 %]"]
    columns += [f"{base.key}'s steps / its steps [95 %]"] if base else []
    columns += ["lives that never hold it", "meta-seeds that succeed [95 % Wilson]", _N]
    caption = (
        "Steps until the return stays at or above the threshold; 95 % bootstrap over seeds and tasks. A life "
        "that never holds it counts with its whole length and one stride: such means are lower bounds. A "
        "meta-seed succeeds when its mean return at the end of life reaches the threshold."
    )
    floors = [_floor(row) for row in records(summaries.floors(data))]
    if floors:
        caption += f" Floor: {'; '.join(floors)}."
    return Table("thresholds", caption, columns, rows, frame, _strong(frame))


def _floor(row: dict[str, Any]) -> str:
    return f"{number(row['steps'])} steps on `{row['set']}`"


def _normalised(frame: pd.DataFrame) -> Table:
    rows = [
        [row["set"], row["label"], with_interval(row, "iqm"), with_interval(row, "gap"), _size(row)]
        for row in records(frame)
    ]
    columns = ["set", "method", "interquartile mean [95 %]", "optimality gap [95 %]", _N]
    caption = (
        "Scores normalised task by task: 0 is the random policy, 1 the optimum. "
        "95 % bootstrap over seeds and tasks."
    )
    return Table("normalised", caption, columns, rows, frame, _strong(frame))


def _search_results(data: SweepData) -> Table:
    frame = summaries.objective_table(data)
    _, how = summaries.objective_of(data)
    rows = []
    for row in records(frame)[:MOST_ROWS]:
        broken = f" ({row['n_diverged']} broke down)" if row["n_diverged"] else ""
        cells = [row["label"], *(number(row[key]) for key in data.searched), number(row["objective"])]
        rows.append([*cells, with_interval(row, "mean"), f"{row['n_seeds']}{broken}", row["status"]])
    columns = ["point", *data.searched, f"objective ({how} over seeds)", "mean [95 % bootstrap over seeds]"]
    caption = f"All {len(frame)} points, best first{_shown(len(frame))}."
    return Table("points", caption, [*columns, "n seeds", "status"], rows, frame.drop(columns="run_id"), (0,))


def _settings(name: str, frame: pd.DataFrame) -> Table:
    ordered = frame.sort_values("score", ascending=False, ignore_index=True)
    columns = [str(column) for column in ordered.columns]
    rows = [[number(row[column]) for column in columns] for row in records(ordered)[:5]]
    caption = (
        f"Tuning of {name}: the best five of {len(frame)} settings, by their score on the selection set."
    )
    return Table(f"settings_{name}", caption, columns, rows, ordered, (0,))


def _summary(key: str, values: Sequence[str]) -> list[str]:
    known = list(dict.fromkeys(values))
    shown = ", ".join(known[:_MOST_POINTS]) + (", ..." if len(known) > _MOST_POINTS else "")
    return [key, str(len(known)), shown]


def _strong(frame: pd.DataFrame) -> list[int]:
    return [index for index, method in enumerate(frame["method"]) if method == "best"]


def _shown(count: int) -> str:
    return f"; the first {MOST_ROWS} are shown, the CSV file has all" if count > MOST_ROWS else ""

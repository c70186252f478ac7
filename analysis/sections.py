"""The report's sections: what is said, in which tables and pictures, and in words where there is nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import points as of_points
from analysis import report_tables, side_by_side, summaries
from analysis.constraint_section import constraint_parts
from analysis.distillation_section import distillation_parts
from analysis.frames import SweepData, records
from analysis.plots import cost, curation, held_out, hyperparameters, learning, search, tuning
from analysis.plots.pictures import Picture
from analysis.systems import score_of, scoring_frame
from analysis.tables import Table, number, with_interval

__all__ = ["SECTIONS", "Section", "sections"]

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
    asked = list(data.config.get("report") or _UNLESS_ASKED)
    unknown = [str(name) for name in asked if name not in SECTIONS]
    found = [headline(data), changes(data), system(data), compared(data)]
    found += [SECTIONS[name](data) for name in asked if name in SECTIONS]
    if unknown:
        words = (
            f"The sweep file asks for what is not known: {', '.join(unknown)}. Known: {', '.join(SECTIONS)}."
        )
        found.append(Section("unknown", "Sections that are not known", [words]))
    found += [meta_test(data), points(data), unfinished(data)]
    return [section for section in found if section is not None]


def headline(data: SweepData) -> Section:
    """Evaluation sets by methods, with what it means in words."""
    table = summaries.headline_table(data, summaries.set_names(data))
    select = summaries.selection_set(data)
    words = [_what_is_best(data)]
    if summaries.best_point(data) is None:
        words = ["No finished point has a finite objective yet, so there is no best point to report."]
    elif select is not None:
        words[0] += (
            f" The set `{select}` chose meta-parameters and tuned baselines, which flatters them there."
        )
    if table.empty:
        return Section("headline", "Headline", [*words, "No evaluation was stored: there are no returns."])
    words += [line for row in records(table) if (line := _sentence(row, data))]
    thresholds = summaries.threshold_table(data, summaries.set_names(data))
    words += [_solved(row) for row in records(thresholds) if row["method"] == "best"]
    if summaries.reference(data) is None:
        words.append("There is no tuned baseline, so no ratio can be given.")
    tables = [report_tables.headline(table, data)]
    if not thresholds.empty:
        tables.append(report_tables.thresholds(thresholds, data))
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
        [row["set"], row["quantity"], with_interval(row, "value"), report_tables.size(row), row["interval"]]
        for row in records(frame)
    ]
    columns = ["set", "quantity", "value [95 %]", report_tables.N, "interval"]
    caption = "Best point."
    return Section("system", f"System: {name}", [], [Table(f"score_{name}", caption, columns, rows, frame)])


def compared(data: SweepData) -> Section | None:
    """Every point on every set, where there are a few; None: there is one, there are many, or none ended."""
    tables = side_by_side.tables(data)
    return Section("side_by_side", "Points side by side", [], tables) if tables else None


def learning_section(data: SweepData) -> Section:
    """Learning curves of all points, and what became of the hyperparameters that were tuned meanwhile."""
    curves, tuned = learning.learning_curves(data), tuning.tuned_values(data)
    words = [] if curves else ["No series was stored, so there are no learning curves."]
    frame = tuning.tuned_table(data)
    tables = [] if frame.empty else [report_tables.tuned(frame)]
    shown = [picture for picture in (curves, tuned) if picture is not None]
    return Section("learning_curves", "Learning curves", words, tables, shown)


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
    tables = [report_tables.normalised(normalised)] if not normalised.empty else []
    return Section("held_out", "Evaluation sets", words, tables, shown)


def hyperparameter_section(data: SweepData) -> Section:
    """The search: every point's objectives, how it went, and the baselines' own searches."""
    several = len(of_points.objectives(data)) > 1
    tables = [report_tables.front(data)] if several and of_points.front(data) else []
    if data.rows("point"):
        tables += [
            report_tables.search_results(data, index) for index in range(len(of_points.objectives(data)))
        ]
    tables += [
        report_tables.settings(name, frame)
        for name, frame in data.settings.items()
        if "score" in frame.columns
    ]
    by_dimension, importance = hyperparameters.one_by_one(data), hyperparameters.importance(data)
    pictures = [
        search.best_so_far(data),
        search.pareto(data),
        by_dimension,
        hyperparameters.parallel(data),
        importance,
    ]
    words = []
    if by_dimension is None:
        words.append("No dimension with more than one value was searched, so there is no picture of it.")
    elif importance is None:
        words.append(
            f"Importance needs at least {hyperparameters.ENOUGH} points with different objectives and two "
            "dimensions that all of them set: left out."
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
    frame = of_points.config_differences(data)
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


def changes(data: SweepData) -> Section | None:
    """Changes of code or configuration that were accepted while the sweep ran; None: there were none."""
    noted: list[dict[str, Any]] = list(data.hardware.get("changes") or ())
    if not noted:
        return None
    lines = [(_when(one["time"]), str(text)) for one in noted for text in one["changes"]]
    words = ["The sweep went on after changes: its points do not all answer the same question."]
    frame = pd.DataFrame(lines, columns=["accepted", "change"])
    table = Table("changes", "In the order they were accepted.", list(frame.columns), lines, frame)
    return Section("changes", "Accepted changes", words, [table])


def unfinished(data: SweepData) -> Section:
    """Runs that did not finish, with their reason, and seeds that broke down."""
    frame, seeds = of_points.unfinished(data), of_points.broken_seeds(data)
    if frame.empty and seeds.empty:
        words = [
            f"Nothing: all {len(data.runs)} runs finished and no training metric left the finite numbers."
        ]
        return Section("unfinished", "What did not finish", words)
    tables = [] if frame.empty else [report_tables.unfinished(frame)]
    tables += [] if seeds.empty else [report_tables.broken_seeds(seeds)]
    return Section("unfinished", "What did not finish", [], tables)


def curation_section(data: SweepData) -> Section:
    """Ratings by level, what models learn from what is kept, and texts that were rated best and worst."""
    shown = [picture for picture in (curation.ratings(data), curation.judges(data)) if picture is not None]
    words = [] if shown else ["No ratings were stored: no evaluation set rates or selects examples."]
    if data.examples.empty:
        return Section(
            "curation", "Curation", [*words, "No corpus was rated yet: see `metalab rate`."], [], shown
        )
    return Section("curation", "Curation", words, [report_tables.rated_examples(data.examples)], shown)


def constraint_section(data: SweepData) -> Section:
    """Soft constraints: methods pair by pair, fixed multipliers, multipliers over time."""
    return Section("soft_constraints", "Soft constraints", *constraint_parts(data))


def distillation_section(data: SweepData) -> Section:
    """Algorithm Distillation: learning in context beside the source, and what the context is worth."""
    return Section("distillation", "Learning in context", *distillation_parts(data))


SECTIONS: dict[str, Callable[[SweepData], Section]] = {
    "learning_curves": learning_section,
    "held_out": held_out_section,
    "hyperparameters": hyperparameter_section,
    "curation": curation_section,
    "soft_constraints": constraint_section,
    "distillation": distillation_section,
    "cost": cost_section,
}


# What a sweep file asks for that says nothing; of a store without configuration nothing else is known.
_UNLESS_ASKED = ("learning_curves", "held_out", "hyperparameters", "cost")


def _what_is_best(data: SweepData) -> str:
    asked, how = of_points.objectives(data), of_points.how_over_seeds(data)
    first = f"`{asked[0].name}` ({how} over seeds)"
    if len(asked) == 1:
        return f"The best point is the one with the best {first}."
    others = ", ".join(f"`{one.name}`" for one in asked[1:])
    return (
        f"No point is best in all of {len(asked)} objectives: what is called best below is the point of the "
        f"Pareto front with the best {first}; the front, with {others}, stands under Hyperparameters."
    )


def _when(seconds: float) -> str:
    return pd.Timestamp(seconds, unit="s", tz="UTC").strftime("%Y-%m-%d %H:%M UTC")


def _sentence(row: dict[str, Any], data: SweepData) -> str:
    """The result on one set in words; empty for rows other than the best point's."""
    if row["method"] != "best" or not np.isfinite(row["return"]):
        return ""
    text = f"On `{row['set']}` the {row['label']} returns {with_interval(row, 'return')}"
    base = summaries.reference(data)
    if base is not None and np.isfinite(row.get("ratio", np.nan)):
        text += f": {with_interval(row, 'ratio')} times {base.label}"
    return f"{text} (n = {report_tables.size(row)} seeds x tasks, {row['interval']})."


def _solved(row: dict[str, Any]) -> str:
    """How soon the best point holds a set's threshold, and in how many seeds."""
    threshold = f"the threshold {number(row['threshold'])} of `{row['set']}`"
    succeed = f"{row['solved_seeds']} seeds end at or above {threshold}"
    if row["censored"] == 1.0:
        return f"{succeed}; no life holds it until its end."
    least = "at least " if row["censored"] > 0.0 else ""
    steps = f"{least}{with_interval(row, 'steps', 0)} environment steps"
    return f"{succeed}; lives hold it for good after {steps} on average."


def _summary(key: str, values: Sequence[str]) -> list[str]:
    known = list(dict.fromkeys(values))
    shown = ", ".join(known[:_MOST_POINTS]) + (", ..." if len(known) > _MOST_POINTS else "")
    return [key, str(len(known)), shown]

"""The objective against the search space: each dimension by itself, all together, and what mattered."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import cm, colors
from matplotlib.figure import Figure

from analysis.frames import SweepData
from analysis.objectives import FINISHED
from analysis.plots.interactive import escaped, finish
from analysis.plots.panels import BLUE, GREY, VERMILLION, Line, Panel
from analysis.plots.pictures import Picture, picture_of
from analysis.plots.static import STYLE, mathless
from analysis.points import front, objective_table, objectives
from analysis.statistics import Floats
from analysis.tables import number

__all__ = ["Dimension", "dimensions", "importance", "importances", "one_by_one", "parallel"]

FEW = 6  # different numbers that get an axis of their own places
ENOUGH = 8  # points below which importance would be noise
_WIDE = 20.0  # a positive dimension that spans this factor is drawn on a logarithmic axis
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One searched key, over the points that set it and have a finite objective.

    Attributes:
        key: dotted.
        rows: [H] places of these points in the table; a condition may leave a key unset elsewhere.
        at: [H] numbers to draw; a category's place on its axis.
        categories: texts of a dimension of names or of few numbers; None: many numbers.
        log: whether the axis is logarithmic.
    """

    key: str
    rows: np.ndarray
    at: Floats
    categories: tuple[str, ...] | None
    log: bool

    @property
    def spread(self) -> Floats:
        """[H] places between 0 and 1 along the (possibly logarithmic) axis."""
        at = np.log(self.at) if self.log else self.at
        span = at.max() - at.min()
        return (at - at.min()) / span if span > 0 else np.full_like(at, 0.5)

    @property
    def apart(self) -> Floats:
        """[H] places to draw at: points of one category stand side by side, not upon each other."""
        if self.categories is None:
            return self.at
        moved = self.at.copy()
        for place in np.unique(self.at):
            (here,) = np.nonzero(self.at == place)
            reach = min(0.3, 0.06 * (len(here) - 1))
            moved[here] += np.linspace(-reach, reach, len(here)) if len(here) > 1 else 0.0
        return moved


def finite_points(data: SweepData, index: int = 0) -> pd.DataFrame:
    """Rows of the objective table that have an objective, best first; pruned points have one too."""
    table: Any = objective_table(data, index)
    return table[np.isfinite(table["objective"].to_numpy(np.float64))].reset_index(drop=True)


def dimensions(data: SweepData, index: int = 0) -> list[Dimension]:
    """The searched keys that take more than one value."""
    table = finite_points(data, index)
    search = data.config.get("search") or {}
    grammar = search if isinstance(search, Mapping) else {}
    found = [_dimension(key, list(table[key]), str(grammar.get(key, ""))) for key in data.searched]
    return [one for one in found if len(np.unique(one.at)) > 1]


def one_by_one(data: SweepData) -> Picture | None:
    """Objectives with their intervals over seeds against each dimension; None: nothing was searched."""
    asked = objectives(data)
    panels, sizes, count = [], set[int](), 0
    for index, one in enumerate(asked):
        table = finite_points(data, index)
        count, sizes = max(count, len(table)), sizes | (set(table["n_seeds"]) - {0})
        y_label = one.name if len(asked) > 1 else "objective"
        panels += [_panel(data, table, dimension, y_label) for dimension in dimensions(data, index)]
    if not panels:
        return None
    named = " and ".join(f"`{one.name}`" for one in asked)
    caption = (
        f"{named} of {count} points: mean and 95 % bootstrap interval over n = "
        f"{' or '.join(map(str, sorted(sizes))) or '?'} seeds; pruned points with what they had reached. "
        "Other dimensions vary within a column."
    )
    return picture_of("hyperparameters", "Objective against each searched dimension", caption, panels)


def _panel(data: SweepData, table: pd.DataFrame, dimension: Dimension, y_label: str) -> Panel:
    several = len(objectives(data)) > 1
    best = [row["run_id"] for row in front(data)[: None if several else 1]]
    chosen = table.iloc[dimension.rows]
    is_best = chosen["run_id"].isin(best).to_numpy()
    finished = (chosen["status"] == FINISHED).to_numpy()
    low, high = (chosen[name].to_numpy(np.float64) for name in ("mean_low", "mean_high"))
    # Without the seeds' own values there is the engine's number, and no interval.
    mean = chosen["mean"].fillna(chosen["objective"]).to_numpy(np.float64)
    groups = (
        ("did not finish", ~finished, GREY),
        ("points", finished & ~is_best, BLUE),
        ("Pareto front" if several else "best point", is_best, VERMILLION),
    )
    lines = [
        Line(label, dimension.apart[where], mean[where], low[where], high[where], color, style="points")
        for label, where, color in groups
        if where.any()
    ]
    ticks = None if dimension.categories is None else list(enumerate(dimension.categories))
    return Panel("", dimension.key, y_label, lines, log_x=dimension.log, x_ticks=_floats(ticks))


def parallel(data: SweepData) -> Picture | None:
    """Parallel coordinates, a line a point coloured by objective; None: fewer than three dimensions.

    Keys that some points leave unset have no place on a line and are left out, as they are of importance.
    """
    found, asked = _set_everywhere(data, 0), objectives(data)[0]
    if len(found) < 3:
        return None
    objective = finite_points(data)["objective"].to_numpy(np.float64)
    caption = f"A line a point (n = {len(objective)}), coloured by its `{asked.name}` over seeds."
    drawn = _parallel_static(found, objective)
    title = "Parallel coordinates"
    return Picture("parallel_coordinates", title, caption, drawn, _parallel_interactive(found, objective))


def importances(data: SweepData, index: int = 0) -> dict[str, float]:
    """Share of each dimension by PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255); {} below 8 points."""
    table, found = finite_points(data, index), _set_everywhere(data, index)
    if len(table) < ENOUGH or len(found) < 2 or len(set(table["objective"])) < 2:
        return {}
    import optuna

    # Evaluators rank trials by a minimised value.
    sign = 1.0 if objectives(data)[index].direction == "minimize" else -1.0
    talk = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=_SEED))
    optuna.logging.set_verbosity(talk)
    space = {one.key: _distribution(one) for one in found}
    trials = [
        optuna.trial.create_trial(
            params={one.key: _param(one, place) for one in found},
            distributions=space,
            value=sign * float(value),
        )
        for place, value in enumerate(table["objective"])
    ]
    study.add_trials(trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
        return optuna.importance.get_param_importances(study, evaluator=evaluator)


def importance(data: SweepData) -> Picture | None:
    """Bars of ``importances``, a panel an objective; None: too few points or dimensions."""
    asked = objectives(data)
    panels = []
    for index, one in enumerate(asked):
        shares = importances(data, index)
        if shares:
            panels.append(_bars(shares, one.name if len(asked) > 1 else ""))
    if not panels:
        return None
    caption = (
        f"PED-ANOVA on n = {len(finite_points(data))} points that have an objective, pruned ones with what "
        "they had reached: what told the best quarter from the rest. No interval; few points give a hint."
    )
    return picture_of("importance", "Importance of the dimensions", caption, panels)


def _bars(shares: dict[str, float], title: str) -> Panel:
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    rows = np.arange(len(ordered), dtype=np.float64)
    bars = Line("", np.asarray([share for _, share in ordered]), rows, color=BLUE, style="bars")
    ticks = [(float(row), key) for row, (key, _) in zip(rows, ordered, strict=True)]
    return Panel(title, "share of importance", "", [bars], y_ticks=ticks)


def _set_everywhere(data: SweepData, index: int) -> list[Dimension]:
    count = len(finite_points(data, index))
    return [one for one in dimensions(data, index) if len(one.rows) == count]


def _dimension(key: str, everywhere: list[Any], grammar: str) -> Dimension:
    rows = np.asarray([place for place, value in enumerate(everywhere) if not pd.isna(value)], np.int64)
    values = [everywhere[place] for place in rows]
    numeric = all(isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in values)
    if numeric and not len(set(values)) <= min(FEW, len(values) // 2):
        at = np.asarray(values, np.float64)
        positive = at.size > 0 and bool((at > 0).all())
        wide = positive and (at.max() / at.min() >= _WIDE or "tag(log" in grammar.replace(" ", ""))
        return Dimension(key, rows, at, None, bool(wide))
    known = sorted(set(values)) if numeric else sorted({str(value) for value in values})
    at = np.asarray([known.index(value if numeric else str(value)) for value in values], np.float64)
    return Dimension(key, rows, at, tuple(number(value) for value in known), False)


def _distribution(dimension: Dimension) -> Any:
    from optuna import distributions

    if dimension.categories is not None:
        return distributions.CategoricalDistribution(dimension.categories)
    low, high = float(dimension.at.min()), float(dimension.at.max())
    return distributions.FloatDistribution(low, high, log=dimension.log)


def _param(dimension: Dimension, index: int) -> Any:
    value = float(dimension.at[index])
    return value if dimension.categories is None else dimension.categories[int(value)]


def _parallel_static(found: list[Dimension], objective: Floats) -> Figure:
    with matplotlib.rc_context(STYLE):  # pyright: ignore[reportArgumentType]
        figure = Figure(figsize=(max(6.0, 2.1 * len(found) + 1.2), 4.2), layout="constrained")
        axes = figure.subplots()
        norm = colors.Normalize(float(objective.min()), float(objective.max()))
        shades = matplotlib.colormaps["viridis"]
        # The best on top.
        for index in np.argsort(objective):
            heights = [one.spread[index] for one in found]
            axes.plot(
                range(len(found)), heights, color=shades(norm(objective[index])), linewidth=1.6, alpha=0.9
            )
        for place, one in enumerate(found):
            axes.axvline(place, color=GREY, linewidth=0.8)
            for height, text in _marks(one):
                axes.annotate(
                    mathless(text), (place, height), xytext=(4, 0), textcoords="offset points", fontsize=8.5,
                    va="center", bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
                )  # fmt: skip
        axes.set_xticks(
            range(len(found)), [mathless(_short(one.key)) for one in found], rotation=18, ha="right"
        )
        axes.set_xlim(-0.15, len(found) - 0.45)
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        figure.colorbar(cm.ScalarMappable(norm, shades), ax=axes, label="objective")
    return figure


def _parallel_interactive(found: list[Dimension], objective: Floats) -> Any:
    from plotly import graph_objects as go

    axes = []
    for one in found:
        marks = _marks(one)
        heights, texts = [height for height, _ in marks], [escaped(text) for _, text in marks]
        label = escaped(_short(one.key))
        axes.append(
            {"label": label, "values": one.spread, "tickvals": heights, "ticktext": texts, "range": [0, 1]}
        )
    axes.append({"label": "objective", "values": objective})
    line = {"color": objective, "colorscale": "Viridis", "showscale": True}
    figure = finish(go.Figure(go.Parcoords(dimensions=axes, line=line, labelangle=-12)), 420)
    figure.update_layout(margin={"l": 90, "r": 40, "t": 90, "b": 30})
    return figure


def _marks(dimension: Dimension) -> list[tuple[float, str]]:
    """Heights and texts along one axis: every category, every value of a small grid, else five values."""
    order = np.unique(dimension.at, return_index=True)[1]
    if len(order) > 8:
        nearest = [int(np.argmin(np.abs(dimension.spread - height))) for height in np.linspace(0, 1, 5)]
        order = np.asarray(sorted(set(nearest)))
    heights = dimension.spread
    texts = dimension.categories
    return [
        (float(heights[i]), texts[int(dimension.at[i])] if texts else f"{dimension.at[i]:.3g}") for i in order
    ]


def _short(key: str) -> str:
    """The last two parts of a dotted key: an axis has little room."""
    return ".".join(key.split(".")[-2:])


def _floats(ticks: list[tuple[int, str]] | None) -> list[tuple[float, str]] | None:
    return None if ticks is None else [(float(place), text) for place, text in ticks]

"""The report's section on soft constraints: tables, pictures, and what may be said of them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis import constraints
from analysis.constraints import FIXED, METAL, RC
from analysis.frames import SweepData, records
from analysis.plots.constraints import multiplier_profile, multipliers_over_time
from analysis.plots.pictures import Picture
from analysis.tables import Table, number, with_interval

__all__ = ["constraint_parts"]

_OVER = "95 % bootstrap over seeds within tasks"


def constraint_parts(data: SweepData) -> tuple[list[str], list[Table], list[Picture]]:
    """Words, tables and pictures of the section."""
    lives = constraints.lives_of(data)
    if lives.empty:
        return ["No life was stored whole, so there is nothing to compare."], [], []
    found = [_acceptance(lives), _binding(lives), _paired(lives), _methods(lives)]
    pictures = [multiplier_profile(lives), multipliers_over_time(data, lives)]
    words = [
        f"{len(lives)} lives. The score of a life is the penalised return of its trials, "
        "`R - kappa max(0, J_C - beta)`, over the last quarter of the checkpoints. Methods are compared on "
        "the same tasks, seeds, initial multipliers and initial rates."
    ]
    words += [text for text in (_rate_in_words(lives), _fixed_in_words(lives)) if text]
    return words, [one for one in found if one is not None], [one for one in pictures if one is not None]


def _acceptance(lives: pd.DataFrame) -> Table | None:
    frame = constraints.acceptance(lives)
    if frame.empty:
        return None
    rows = [
        [row["figure"], with_interval(row, "value"), row["bar"], "yes" if row["met"] else "no"]
        for row in records(frame)
    ]
    columns = ["figure", "value [95 %]", "asked for", "met"]
    return Table("acceptance", f"Figures fixed beforehand. Interval: {_OVER}.", columns, rows, frame)


def _binding(lives: pd.DataFrame) -> Table | None:
    frame = constraints.binding(lives)
    if frame.empty:
        return None
    rows = [
        [
            *(row["task"], number(row["none"]), number(row["cost"]), number(row["best"])),
            *(number(row["best_start"]), number(row["earned"]), with_interval(row, "shortfall")),
            "yes" if row["binds"] else "no",
        ]
        for row in records(frame)
    ]
    columns = [
        "task",
        "score without",
        "its mean cost",
        "best score",
        "its multiplier",
        "its return",
        "shortfall [95 %]",
        "binds",
    ]
    caption = (
        "Without a constraint and with the best of the fixed multipliers, chosen on the same lives. The "
        "shortfall is the difference of their scores as a share of the best one's return, from which no "
        f"violation is deducted; a constraint binds from {constraints.BINDS:.0%} on. Interval: 95 % "
        "bootstrap over seeds."
    )
    return Table("binding", caption, columns, rows, frame)


def _paired(lives: pd.DataFrame) -> Table | None:
    """Every method that tunes something, less every one that does not, altogether and by initial rate."""
    names = list(dict.fromkeys(lives["method"]))
    plain = [name for name in names if name in (RC, FIXED, "open loop") or name.startswith("decay")]
    every = sorted({float(rate) for rate in lives.loc[~lives["method"].isin(plain), "rate"]})
    rows, frame = [], []
    for method in [name for name in names if name not in plain]:
        own = constraints.rates_of(lives, method)
        for other in plain:
            cells = {"all": constraints.paired(lives, method, other, own)}
            # A method that did not run with a rate has no pairs there.
            cells |= {f"{rate:g}": constraints.paired(lives, method, other, [rate]) for rate in every}
            row = {"method": method, "other": other}
            for name, found in cells.items():
                if found is not None:
                    ends = zip(("", "_low", "_high"), found, strict=True)
                    row |= {f"{name}{end}": float(value) for end, value in ends}
            rows.append([f"{method} - {other}", *(with_interval(row, name, 1) for name in cells)])
            frame.append(row)
    if not rows:
        return None
    columns = ["difference of scores", "all", *(f"rate {rate:g}" for rate in every)]
    caption = f"Pairs of the same task, seed and initial multiplier (and rate). Interval: {_OVER}."
    return Table("paired", caption, columns, rows, pd.DataFrame(frame))


def _methods(lives: pd.DataFrame) -> Table:
    frame = constraints.by_method(lives)
    rows = [
        [
            *(row["method"], f"{row['rate']:g}", with_interval(row, "score", 1), number(row["return"])),
            *(number(row[name]) for name in ("overshoot", "peak", "multiplier", "last_rate", "n")),
        ]
        for row in records(frame)
    ]
    columns = ["method", "initial rate", "score [95 %]", "return", "overshoot", "peak multiplier"]
    columns += ["last multiplier", "last rate", "lives"]
    caption = (
        "Means over tasks, initial multipliers and seeds; medians of multipliers and rates. Interval: "
        f"{_OVER}."
    )
    return Table("methods", caption, columns, rows, frame)


def _rate_in_words(lives: pd.DataFrame) -> str:
    """What the comparison with RC says, rate by rate, in words that claim no more."""
    rates = constraints.rates_of(lives, METAL)
    said: dict[str, list[str]] = {"ahead of": [], "behind": [], "level with": []}
    for rate in rates:
        found = constraints.paired(lives, METAL, RC, [rate])
        if found is not None:
            said[_stands(float(found.low), float(found.high))].append(f"{rate:g}")
    parts = [f"{how} {RC} at initial rates {_listed(at)}" for how, at in said.items() if at]
    return f"{METAL} is {'; '.join(parts)}." if parts else ""


def _fixed_in_words(lives: pd.DataFrame) -> str:
    """A fixed multiplier is the line that an automatic method has to pass."""
    groups: Any = lives.groupby(["method", "rate", "start"], as_index=False)["score"].mean()
    fixed = groups[groups["method"] == FIXED].set_index("start")["score"]
    means = groups[groups["method"] == METAL].groupby("rate")["score"].mean()
    if fixed.empty or means.empty:
        return ""
    by_rate = ", ".join(f"{float(value):.1f} from rate {rate:g}" for rate, value in means.items())
    return (
        f"The best single fixed multiplier over all tasks, {float(fixed.idxmax()):g}, scores "
        f"{fixed.max():.1f}; {METAL} scores {by_rate}. A well-chosen fixed multiplier needs no adaptation; "
        "what adaptation can offer is that less has to be chosen well."
    )


def _stands(low: float, high: float) -> str:
    return "ahead of" if low > 0.0 else "behind" if high < 0.0 else "level with"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

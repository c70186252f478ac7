"""``metalab rate`` and ``filter``: from a trained rater to the data that it keeps."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from metalab.commands.shared import root_of
from metalab.documents import told

__all__ = ["filter_", "rate"]


def rate(arguments: argparse.Namespace) -> int:
    """Rates a corpus with a run's rater."""
    root = root_of(arguments)
    from analysis.store import require_store

    require_store(root)
    from metalab.devices import configure

    configure(1)
    from metalab.curation.rate import RatingJob, rate_corpus

    job = RatingJob(
        run_id=arguments.run,
        corpus=tuple(arguments.corpus),
        output=arguments.output,
        column=arguments.column,
        seed=arguments.seed,
        fresh=arguments.fresh,
    )
    summary = rate_corpus(job, root, lambda text: print(text, file=sys.stderr))
    print(f"{summary.windows} windows of {summary.documents} documents{_left_out(summary.skipped)}")
    print("\n".join(map(str, summary.files)))
    return 0


def filter_(arguments: argparse.Namespace) -> int:
    """Writes the best rated share of a corpus."""
    from metalab.curation.filter import FilterJob, filter_corpus

    job = FilterJob(
        ratings=arguments.ratings,
        corpus=tuple(arguments.corpus),
        keep=arguments.keep,
        output=arguments.to,
        column=arguments.column,
        batch=arguments.batch,
        seed=arguments.seed,
    )
    summary = filter_corpus(job)
    print(
        f"kept {summary.windows} of {summary.of_windows} windows, of {summary.documents} of "
        f"{summary.of_documents} documents{_left_out(summary.skipped)}"
    )
    print(f"{len(summary.files)} files below {Path(job.output)}")
    return 0


def _left_out(skipped: Counter[str]) -> str:
    return f"; left out: {told(skipped)}" if told(skipped) else ""

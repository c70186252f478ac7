"""Keeping the best rated share of a corpus: the same documents and formats, other windows left out."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet

from metalab.curation.ratings import RATING_COLUMNS, acceptance_probability
from metalab.documents import Document, find_files, read_documents
from metalab.errors import ConfigError

__all__ = ["FilterJob", "FilterSummary", "filter_corpus"]


@dataclasses.dataclass(frozen=True)
class FilterJob:
    """What is kept, and where it is written.

    Attributes:
        ratings: table that ``rate_corpus`` wrote.
        corpus: the files that were rated.
        keep: share of the windows that is kept.
        output: folder to write into.
        column: that holds the text, in JSON lines and Parquet.
        batch: B of the acceptance probability: a window is kept by chance, as it would be among the best of
            a batch; None: the best windows are kept, all of them.
        seed: of that chance.
    """

    ratings: Path
    corpus: tuple[str, ...]
    keep: float
    output: Path
    column: str = "text"
    batch: int | None = None
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class FilterSummary:
    """What was kept: windows, documents with any of them, and files."""

    windows: int
    of_windows: int
    documents: int
    of_documents: int
    skipped: Counter[str]
    files: tuple[Path, ...]


def filter_corpus(job: FilterJob) -> FilterSummary:
    """Writes what is kept of every file under the output folder.

    Windows that are kept are joined in their order, with a line break where some are missing between them;
    documents of which nothing is kept are left out. Other columns of a row stay as they are.

    Raises:
        ConfigError: the share is not above 0 and at most 1, the table is no rating, or it is one of other
            documents.
    """
    if not 0.0 < job.keep <= 1.0:
        raise ConfigError("--keep", f"expected a share above 0 and at most 1, got {job.keep:g}")
    spans, windows = _kept_spans(job)
    files = find_files(job.corpus, "--corpus")
    base = Path(os.path.commonpath([path.absolute().parent for path in files]))
    skipped: Counter[str] = Counter()
    written, kept, seen = [], 0, 0
    for path in files:
        documents = list(read_documents([path], job.column, skipped))
        unknown = [one.name for one in documents if one.name not in spans]
        if unknown:
            missing = f"{unknown[0]} was not rated: it is not in {job.ratings}"
            raise ConfigError("--corpus", f"{missing}; name the corpus as for `metalab rate`")
        left = [(one, text) for one in documents if (text := _text(one, spans[one.name]))]
        seen, kept = seen + len(documents), kept + len(left)
        if left:
            written.append(job.output / path.absolute().relative_to(base))
            _write(path, written[-1], left, job.column)
    kept_windows = sum(len(one) for one in spans.values())
    return FilterSummary(kept_windows, windows, kept, seen, skipped, tuple(written))


def _kept_spans(job: FilterJob) -> tuple[Mapping[str, Sequence[tuple[int, int]]], int]:
    """Document name to the (start, stop) of the windows that are kept, and how many were rated."""
    if not job.ratings.is_file():
        raise ConfigError("RATINGS", f"there is no file {job.ratings}; `metalab rate` writes one")
    with contextlib.suppress(pa.ArrowException):
        known = parquet.read_schema(job.ratings).names
        if set(RATING_COLUMNS) <= set(known):
            return _spans_of(pd.read_parquet(job.ratings), job)
    raise ConfigError("RATINGS", f"{job.ratings} is no table of `metalab rate`")


def _spans_of(frame: pd.DataFrame, job: FilterJob) -> tuple[dict[str, list[tuple[int, int]]], int]:
    percentile = frame["percentile"].to_numpy(np.float64)
    if job.batch is None:
        chosen = percentile >= 1.0 - job.keep
    else:
        kept = max(1, round(job.keep * job.batch))
        chance = acceptance_probability(percentile, job.batch, kept)
        chosen = np.random.default_rng(job.seed).random(len(frame)) < chance
    spans: dict[str, list[tuple[int, int]]] = {str(name): [] for name in frame["document"].unique()}
    rows = frame[chosen]
    for name, start, stop in zip(rows["document"], rows["start"], rows["stop"], strict=True):
        spans[str(name)].append((int(start), int(stop)))
    return spans, len(frame)


def _text(document: Document, spans: Sequence[tuple[int, int]]) -> str:
    """What is kept of a document; spans that touch are one, and cut characters at a gap are dropped."""
    joined: list[tuple[int, int]] = []
    for start, stop in spans:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    raw = document.text.encode("utf-8")
    return "\n".join(raw[start:stop].decode("utf-8", errors="ignore") for start, stop in joined)


def _write(source: Path, target: Path, left: Sequence[tuple[Document, str]], column: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".jsonl":
        lines = [json.dumps(_replaced(one, column, text), ensure_ascii=False) for one, text in left]
        target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif source.suffix == ".parquet":
        rows = [_replaced(one, column, text) for one, text in left]
        parquet.write_table(pa.Table.from_pylist(rows, schema=parquet.read_schema(source)), target)
    else:
        target.write_text(left[0][1], encoding="utf-8")


def _replaced(document: Document, column: str, text: str) -> dict[str, Any]:
    return {**(document.record or {}), column: text}

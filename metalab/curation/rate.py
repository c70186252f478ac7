"""Rating a corpus with the rater of a finished run, piece by piece and resumable.

Pieces of the corpus are written to a folder beside the output, each at once and for good: the same call after
an interruption goes on behind the last one. When all are there, percentiles are known and the table is put
together.
"""

from __future__ import annotations

import dataclasses
import heapq
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import yaml

from metalab.components import as_arrays
from metalab.curation.ratings import EXAMPLES_FILE, distribution, percentiles
from metalab.documents import Document, find_files, read_documents, told
from metalab.errors import ConfigError, MetalabError
from metalab.sweep.meta_test import find_run
from metalab.sweep.records import load_meta_params
from metalab.tracking import Store

__all__ = ["RatingJob", "RatingSummary", "rate_corpus"]

_PIECE = 64  # documents
_EXAMPLES = 10  # texts at each end of the ratings that are kept for the report


@dataclasses.dataclass(frozen=True)
class RatingJob:
    """What is rated, and how.

    Attributes:
        run_id: of a finished point whose learner has a rater of texts, or its name.
        corpus: files, folders or globs.
        output: the Parquet file to write.
        column: that holds the text, in JSON lines and Parquet.
        seed: which of the run's meta-seeds rates.
        batch: windows that are rated at once.
        fresh: leave aside what an interrupted call left.
    """

    run_id: str
    corpus: tuple[str, ...]
    output: Path
    column: str = "text"
    seed: int = 0
    batch: int = 256
    fresh: bool = False


@dataclasses.dataclass(frozen=True)
class RatingSummary:
    """What was rated: counts, what was left out by its reason, and the files that were written."""

    documents: int
    windows: int
    skipped: Counter[str]
    files: tuple[Path, ...]


def rate_corpus(job: RatingJob, root: Path, say: Callable[[str], None]) -> RatingSummary:
    """Rates every window of every document.

    Args:
        job: what is asked.
        root: folder of the store.
        say: told how far it is.

    Returns:
        The output has one row a window (``ratings.RATING_COLUMNS``), ``OUTPUT.cdf.parquet`` the cumulative
        distribution and ``OUTPUT.examples.parquet`` the texts rated best and worst; these go to the run, too.

    Raises:
        MetalabError: no such run or seed, a learner that does not rate texts, a corpus without documents.
    """
    files = find_files(job.corpus, "--corpus")
    rater = _Rater.of(job, root)
    pieces = _begun(job, files)
    skipped: Counter[str] = Counter()
    documents = read_documents(files, job.column, skipped)
    count = 0
    for number, piece in enumerate(iter(lambda: list(islice(documents, _PIECE)), [])):
        count += len(piece)
        path = pieces / f"{number:06d}.parquet"
        if not path.exists():
            frame = _rated(rater, piece, job.batch)
            _write(path, [pa.Table.from_pandas(frame, preserve_index=False)])
        say(f"{count} documents rated")
    if not count:
        left = told(skipped) or "nothing"
        raise ConfigError("--corpus", f"has no document that can be rated; left out: {left}")
    written, windows = _put_together(job, pieces, rater)
    shutil.rmtree(pieces)
    rater.record(written[-1])
    return RatingSummary(count, windows, skipped, written)


@dataclasses.dataclass(frozen=True)
class _Rater:
    """A run's rater: its windows of a text, and the scores of windows."""

    stream: Any
    score: Callable[[np.ndarray], np.ndarray]
    record: Callable[[Path], None]

    @classmethod
    def of(cls, job: RatingJob, root: Path) -> _Rater:
        from metalab.config.build import build_learner, build_tasks

        run, experiment = find_run(job.run_id, root)
        store = Store(root, experiment)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(store.client.download_artifacts(run.run_id, "", name))
            if not (folder / "meta_params.npz").exists():
                raise MetalabError(
                    f"run {job.run_id} has no meta-parameters: only a point that finished has some"
                )
            config = yaml.safe_load((folder / "config.yaml").read_text())
            learner = as_arrays(build_learner(config["inner"], build_tasks(config["tasks"])))
            stream = getattr(learner, "stream", None)
            if not (hasattr(learner, "rate") and hasattr(stream, "windows_of")):
                raise MetalabError(f"run {job.run_id}: a {type(learner).__name__} there does not rate texts")
            template = jax.eval_shape(learner.init_meta, jax.random.key(0))
            metas = load_meta_params(folder, template)
        seeds = jax.tree.leaves(metas)[0].shape[0]
        if job.seed >= seeds:
            raise ConfigError("--seed", f"the run has the seeds 0 to {seeds - 1}, got {job.seed}")
        meta = jax.tree.map(lambda leaf: jax.numpy.asarray(leaf[job.seed]), metas)
        score = jax.jit(lambda windows: learner.rate(meta, windows))

        def record(examples: Path) -> None:
            with tempfile.TemporaryDirectory() as name:
                store.artifact(run.run_id, Path(shutil.copy(examples, Path(name) / EXAMPLES_FILE)))

        return cls(stream, lambda windows: np.asarray(score(windows)), record)


def _begun(job: RatingJob, files: Sequence[Path]) -> Path:
    """The folder of the pieces; one that an earlier call left must be of the same job."""
    folder = job.output.with_name(job.output.name + ".pieces")
    if job.fresh and folder.exists():
        shutil.rmtree(folder)
    sizes = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    mine = {"run": job.run_id, "seed": job.seed, "column": job.column, "files": sizes}
    note = folder / "job.json"
    if note.exists() and json.loads(note.read_text()) != mine:
        raise ConfigError("--output", f"{folder} holds pieces of another rating; --fresh removes them")
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(mine))
    return folder


def _rated(rater: _Rater, documents: Sequence[Document], batch: int) -> pd.DataFrame:
    rows, windows = [], []
    for document in documents:
        tokens, ends = rater.stream.windows_of(document.text)
        starts = [0, *ends[:-1]]
        rows += [(document.name, at, *span) for at, span in enumerate(zip(starts, ends, strict=True))]
        windows.append(tokens)
    frame = pd.DataFrame(rows, columns=["document", "window", "start", "stop"])
    return frame.assign(score=_scores(rater, np.concatenate(windows), batch))


def _scores(rater: _Rater, windows: np.ndarray, batch: int) -> np.ndarray:
    """[n] scores in batches of one size, the last one filled up: one program for all of them."""
    found = []
    for start in range(0, len(windows), batch):
        chosen = windows[start : start + batch]
        filled = np.resize(chosen, (batch, *chosen.shape[1:]))
        found.append(rater.score(filled)[: len(chosen)])
    return np.concatenate(found).astype(np.float64)


def _put_together(job: RatingJob, pieces: Path, rater: _Rater) -> tuple[tuple[Path, ...], int]:
    """The table with percentiles, its distribution, and the texts at its ends."""
    parts = sorted(pieces.glob("*.parquet"))
    sizes = [parquet.read_metadata(path).num_rows for path in parts]
    scores = np.concatenate([pd.read_parquet(path, columns=["score"])["score"].to_numpy() for path in parts])
    share = np.split(percentiles(scores), np.cumsum(sizes)[:-1])
    made = (pd.read_parquet(path).assign(percentile=of) for path, of in zip(parts, share, strict=True))
    ends = _Ends()

    def seen(frames: Iterator[pd.DataFrame]) -> Iterator[pa.Table]:
        for frame in frames:
            ends.add(frame)
            yield pa.Table.from_pandas(frame, preserve_index=False)

    _write(job.output, seen(made))
    tables = {"cdf": distribution(scores), "examples": ends.texts(job)}
    files = [job.output]
    for name, frame in tables.items():
        files.append(job.output.with_suffix(f".{name}.parquet"))
        _write(files[-1], [pa.Table.from_pandas(frame, preserve_index=False)])
    return tuple(files), len(scores)


class _Ends:
    """The best and the worst rated windows among all that were added."""

    def __init__(self) -> None:
        self._rows: dict[str, list[tuple[Any, ...]]] = {"best": [], "worst": []}

    def add(self, frame: pd.DataFrame) -> None:
        """Takes the rows of one piece."""
        rows = list(frame.itertuples(index=False, name=None))
        score = list(frame.columns).index("score")
        for end, pick in (("best", heapq.nlargest), ("worst", heapq.nsmallest)):
            self._rows[end] = pick(_EXAMPLES, [*self._rows[end], *rows], key=lambda row: row[score])

    def texts(self, job: RatingJob) -> pd.DataFrame:
        """The rows with their texts, best first."""
        columns = ["document", "window", "start", "stop", "score", "percentile"]
        rows = [*self._rows["best"], *reversed(self._rows["worst"])]
        frame = pd.DataFrame(rows, columns=columns).drop_duplicates(["document", "window"])
        wanted = set(frame["document"])
        files = find_files(job.corpus, "--corpus")
        of = {
            d.name: d.text.encode() for d in read_documents(files, job.column, Counter()) if d.name in wanted
        }
        texts = [
            of[name][start:stop].decode(errors="replace")
            for name, start, stop in zip(frame["document"], frame["start"], frame["stop"], strict=True)
        ]
        return frame.assign(text=texts)


def _write(path: Path, tables: Iterable[pa.Table]) -> None:
    """A Parquet file of tables of one schema that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".half")
    rest = iter(tables)
    first = next(rest)
    with parquet.ParquetWriter(half, first.schema) as writer:
        for table in chain([first], rest):
            writer.write_table(table)
    half.rename(path)

"""A rater's run in a store, `metalab rate` on a corpus, `metalab filter` on what came of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import yaml

from metalab.cli import main
from metalab.config.build import build_learner, build_tasks
from metalab.curation.ratings import RATING_COLUMNS
from metalab.sweep.records import save_meta_params
from metalab.tracking import Store
from tests.corpus_toys import write_corpus

WINDOW = 8
GOOD, BAD = "aaaa aaaa aaaa aaaa", "zzzz zzzz zzzz zzzz"


def config(folder: Path) -> dict:
    stream = {
        "kind": "text",
        "corpus": {"kind": "files", "paths": [str(folder)]},
        "tokenizer": {"kind": "bytes"},
        "window": WINDOW,
    }
    rater = {"kind": "transformer", "width": 4, "layers": 1, "heads": 1}
    return {
        "inner": {"kind": "datarater", "rater": rater, "model": {"kind": "language_model", "width": 8}},
        "tasks": {"kind": "taught_by_examples", "stream": stream},
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A store with one run of two seeds, whose raters like the letter a and dislike the letter z."""
    root = tmp_path_factory.mktemp("runs")
    shutil.copy(empty_database, root / "mlflow.db")
    made = config(write_corpus(root / "training"))
    learner = build_learner(made["inner"], build_tasks(made["tasks"]))
    meta = jax.tree.map(np.array, learner.init_meta(jax.random.key(0)))
    embedding = meta["body"]["params"]["embed"]["embedding"]
    embedding[:] = 0.0
    embedding[ord("a"), 0], embedding[ord("z"), 0] = 1.0, -1.0
    meta["head"][0] = 1.0
    block = meta["body"]["params"]["block_0"]
    for layer in ("out", "fall"):  # what the block would add
        block[layer]["kernel"][:] = 0.0
    folder = root / "artifacts_of_run"
    folder.mkdir()
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), meta)
    save_meta_params(folder, both, {"outer_steps": [1, 1]})
    (folder / "config.yaml").write_text(yaml.safe_dump(made))
    store = Store(root, "toy")
    run = store.open("point", "digest", "point 0")
    for path in sorted(folder.iterdir()):
        store.artifact(run.run_id, path)
    store.close(run.run_id, "FINISHED")
    (root / "run_id").write_text(run.run_id)
    return root


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "mixed.txt").write_text(GOOD[:WINDOW] + BAD[:WINDOW] + GOOD[:WINDOW])
    records = [{"id": 1, "text": GOOD}, {"id": 2, "text": BAD}]
    (folder / "lines.jsonl").write_text("\n".join(map(json.dumps, records)) + "\nbroken\n")
    pd.DataFrame(records).to_parquet(folder / "table.parquet")
    return folder


def rated(root: Path, corpus: Path, output: Path, *more: str) -> int:
    run = (root / "run_id").read_text()
    where = ["--corpus", str(corpus), "--output", str(output), "--root", str(root)]
    return main(["rate", run, *where, *more])


def test_a_corpus_is_rated_and_its_best_share_written_back(root, corpus, tmp_path, capsys) -> None:
    output = tmp_path / "ratings.parquet"
    assert rated(root, corpus, output) == 0
    said = capsys.readouterr().out
    assert "15 windows of 5 documents; left out: 1 invalid JSON line" in said
    frame: Any = pd.read_parquet(output)
    assert tuple(frame.columns) == RATING_COLUMNS
    mixed = frame[frame["document"].str.endswith("mixed.txt")]
    assert mixed[["window", "start", "stop"]].to_numpy().tolist() == [[0, 0, 8], [1, 8, 16], [2, 16, 24]]
    assert mixed["score"].iloc[1] < 0.0 < mixed["score"].iloc[0]
    assert frame["percentile"].mean() == pytest.approx(0.5)
    assert pd.read_parquet(tmp_path / "ratings.cdf.parquet")["score"].is_monotonic_increasing
    texts = pd.read_parquet(tmp_path / "ratings.examples.parquet")["text"]
    assert set(texts.iloc[0]) <= set("a ")
    assert set(texts.iloc[-1]) <= set("z ")
    store = Store(root, "toy")
    kept = [one.path for one in store.client.list_artifacts((root / "run_id").read_text())]
    assert "rated_examples.parquet" in kept

    to = tmp_path / "kept"
    command = ["filter", str(output), "--corpus", str(corpus), "--keep", "0.5", "--to", str(to)]
    assert main(command) == 0
    assert "of 4 of 5 documents" not in capsys.readouterr().err
    assert (to / "deep" / "mixed.txt").read_text() == f"{GOOD[:WINDOW]}\n{GOOD[:WINDOW]}"
    lines = [json.loads(line) for line in (to / "lines.jsonl").read_text().splitlines()]
    assert [one["id"] for one in lines] == [1]
    assert set(lines[0]["text"]) == set("a ")
    table = pd.read_parquet(to / "table.parquet")
    assert table["id"].tolist() == [1]

    everything = ["--keep", "1", "--to", str(tmp_path / "all")]
    assert main([*command[:4], *everything]) == 0
    name = Path("deep") / "mixed.txt"
    assert (tmp_path / "all" / name).read_text() == (corpus / name).read_text()


def test_an_interrupted_rating_goes_on_and_ends_the_same(root, corpus, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("metalab.curation.rate._PIECE", 2)
    whole, again = tmp_path / "whole.parquet", tmp_path / "again.parquet"
    assert rated(root, corpus, whole) == 0
    calls = []
    from metalab.curation import rate

    original = rate._rated

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(rate, "_rated", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rated(root, corpus, again)
    assert rated(root, corpus, again) == 0
    # Three pieces of at most two documents: one before, one that was interrupted, two after.
    assert len(calls) == 4
    pd.testing.assert_frame_equal(pd.read_parquet(whole), pd.read_parquet(again))
    assert not again.with_name("again.parquet.pieces").exists()


def test_pieces_of_another_rating_are_not_taken_for_this_one(root, corpus, tmp_path, capsys) -> None:
    output = tmp_path / "ratings.parquet"
    pieces = output.with_name("ratings.parquet.pieces")
    pieces.mkdir()
    (pieces / "job.json").write_text("{}")
    assert rated(root, corpus, output) == 2
    assert "holds pieces of another rating; --fresh removes them" in capsys.readouterr().err
    assert rated(root, corpus, output, "--fresh") == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seed", "2"], "the run has the seeds 0 to 1, got 2"),
        (["--column", "none"], "has no column 'none'"),
    ],
)
def test_what_cannot_be_rated_is_refused(root, corpus, tmp_path, capsys, more, message) -> None:
    assert rated(root, corpus, tmp_path / "ratings.parquet", *more) == 2
    assert message in capsys.readouterr().err


def test_a_corpus_without_documents_is_refused_with_counts(root, tmp_path, capsys) -> None:
    (tmp_path / "a.txt").write_text(" ")
    (tmp_path / "b.txt").write_bytes(b"\0")
    assert rated(root, tmp_path / "*.txt", tmp_path / "ratings.parquet") == 2
    assert "no document that can be rated; left out: 1 binary, 1 empty" in capsys.readouterr().err


def filtered(ratings: Path, corpus: Path, to: Path, *more: str) -> int:
    return main(["filter", str(ratings), "--corpus", str(corpus), "--to", str(to), *more])


def table(path: Path, names: list[str], percentile: list[float]) -> Path:
    spans = {"window": 0, "start": 0, "stop": 4, "score": 0.0, "percentile": percentile}
    pd.DataFrame({"document": names, **spans}).to_parquet(path)
    return path


def test_a_table_of_other_documents_is_refused(corpus, tmp_path, capsys) -> None:
    other = table(tmp_path / "other.parquet", ["elsewhere.txt"], [0.9])
    assert filtered(other, corpus, tmp_path / "to", "--keep", "0.5") == 2
    assert "was not rated: it is not in" in capsys.readouterr().err
    (tmp_path / "none.parquet").write_text("no table")
    assert filtered(tmp_path / "none.parquet", corpus, tmp_path / "to", "--keep", "0.5") == 2
    assert "is no table of `metalab rate`" in capsys.readouterr().err


def test_acceptance_by_chance_keeps_the_share_on_average(tmp_path, capsys) -> None:
    corpus = tmp_path / "many"
    corpus.mkdir()
    names = []
    for number in range(200):
        names.append(str(corpus / f"{number:03d}.txt"))
        Path(names[-1]).write_text("text")
    ratings = table(tmp_path / "r.parquet", names, list((np.arange(200) + 0.5) / 200))
    assert filtered(ratings, corpus, tmp_path / "to", "--keep", "0.25", "--batch", "16") == 0
    # 200 windows of which a quarter is expected; the variance is less than that of 200 coins of 1/4 (37.5).
    kept = len(list((tmp_path / "to").iterdir()))
    assert abs(kept - 50) < 20
    assert f"kept {kept} of 200 windows, of {kept} of 200 documents" in capsys.readouterr().out

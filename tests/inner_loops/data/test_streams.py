from __future__ import annotations

from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from inner_loops.data.corpora import FileCorpus, PythonCorpus
from inner_loops.data.labelled import NoisyDigits
from inner_loops.data.text import TextStream
from inner_loops.data.tokenizers import BytePairs, Bytes
from metalab.errors import ConfigError
from tests.corpus_toys import text_of, tiny_stream, write_corpus


def documents_in(stream: TextStream, part: str) -> set[str]:
    """The documents whose lines begin in a part's windows: their names stand there."""
    text = "".join(text_of(row) for row in stream.parts()[part].inputs)
    return {text[at : at + 5] for at in range(len(text) - 5) if text[at : at + 3] == "doc"}


def test_the_split_is_by_document(tmp_path: Path) -> None:
    stream = tiny_stream(write_corpus(tmp_path), levels=(0.0,))
    parts = [documents_in(stream, name) for name in ("train", "outer", "validation")]
    assert [len(part) for part in parts] == [6, 2, 2]
    assert len(set.union(*parts)) == 10


def test_levels_are_equally_frequent_and_only_where_they_should_be(tmp_path: Path) -> None:
    parts = tiny_stream(write_corpus(tmp_path)).parts()
    for name in ("train", "rated"):
        counts = np.unique(parts[name].level, return_counts=True)[1]
        assert len(counts) == 5
        assert counts.max() - counts.min() <= 1
    assert not parts["outer"].level.any()
    assert not parts["validation"].level.any()
    control = tiny_stream(tmp_path, corrupt_outer=True).parts()
    assert len(np.unique(control["outer"].level)) == 5
    np.testing.assert_array_equal(control["train"].inputs, parts["train"].inputs)


def test_a_draw_is_of_windows_with_their_level(tmp_path: Path) -> None:
    stream = tiny_stream(write_corpus(tmp_path))
    drawn = jax.jit(stream.train, static_argnums=1)(jax.random.key(0), 64)
    rows = {(*row.tolist(), float(level)) for row, level in zip(*stream.parts()["train"][:2], strict=True)}
    assert {(*row.tolist(), float(level)) for row, level in zip(*drawn[:2], strict=True)} <= rows
    assert len(np.unique(drawn.level)) == 5


def test_windows_that_the_host_feeds_are_those_of_the_device(tmp_path: Path, monkeypatch) -> None:
    stream = tiny_stream(write_corpus(tmp_path))
    keys = jax.random.split(jax.random.key(0), 3)

    def drawn():
        return jax.jit(jax.vmap(lambda key: stream.train(key, 5)))(keys)

    on_device = drawn()
    monkeypatch.setattr("inner_loops.data.base._ON_DEVICE", 0)
    chex.assert_trees_all_equal(drawn(), on_device)


def test_windows_of_a_document_and_their_ends_in_bytes(tmp_path: Path) -> None:
    stream = tiny_stream(write_corpus(tmp_path), window=4, tokenizer=Bytes())
    windows, ends = stream.windows_of("naïve text")
    assert ends.tolist() == [4, 8, 11]
    raw = "naïve text".encode()
    assert [bytes(row.tolist()).rstrip(b"\0") for row in windows] == [raw[:4], raw[4:8], raw[8:]]


def test_fewer_symbols_clip_what_lies_above() -> None:
    assert Bytes(symbols=128).encode("aï").tolist() == [97, 127, 127]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a" * 100], "has 1 documents; expected at least 3"),
        (["a" * 100, "", "\0"], r"has 1 documents \(1 binary, 1 empty left out\)"),
        (["a" * 100, "b" * 100, "c"], "shorter than one window of 12 symbols"),
    ],
)
def test_a_corpus_that_is_too_small_is_refused(tmp_path: Path, texts: list[str], message: str) -> None:
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text)
    with pytest.raises(ConfigError, match=message):
        tiny_stream(tmp_path).validation(2)


def test_what_a_corpus_leaves_out_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_corpus(tmp_path)
    (tmp_path / "empty.txt").write_text("")
    tiny_stream(tmp_path).validation(2)
    assert "left out 1 empty" in caplog.text


@pytest.mark.slow
def test_the_corpus_of_every_python_has_thousands_of_windows_and_no_file_from_elsewhere() -> None:
    stream = TextStream(corpus=PythonCorpus(most=40), window=48)
    assert len(stream.parts()["train"].inputs) > 1000
    # Whatever else is installed beside the library must not move the figures.
    assert all("site-packages" not in one.name for one in PythonCorpus(most=40).documents({}))  # pyright: ignore


def test_a_tokenizer_file_needs_its_library_or_the_file() -> None:
    with pytest.raises(ConfigError, match=r"metalab\[tokenizers\]|there is no file"):
        BytePairs(path="none.json").encode("text")


def test_paths_of_a_corpus_must_match_something() -> None:
    with pytest.raises(ConfigError, match="matches no file"):
        tiny_stream(Path("nowhere"), corpus=FileCorpus(paths=("nowhere/*.txt",))).validation(2)


def test_digits_have_the_share_of_wrong_labels_in_training_alone() -> None:
    stream = NoisyDigits(wrong=0.4)
    drawn = stream.train(jax.random.key(0), 4000)
    assert float(drawn.level.mean()) == pytest.approx(0.4, abs=0.05)
    assert not stream.outer(jax.random.key(1), 100).level.any()
    rated, clean = stream.rated(300), stream.validation(300)
    np.testing.assert_array_equal(rated.inputs.features, clean.inputs.features)
    np.testing.assert_array_equal(rated.inputs.label != clean.inputs.label, rated.level == 1.0)

"""A tiny corpus on disk, and a DataRater of a size that compiles quickly."""

from __future__ import annotations

from pathlib import Path

from inner_loops.data.corpora import FileCorpus
from inner_loops.data.text import TextStream
from inner_loops.data.tokenizers import Bytes
from inner_loops.datarater import DataRater
from inner_loops.language_model import LanguageModel
from inner_loops.raters import TransformerRater
from metalab.optimizers import Adam

WORDS = "the cat sat on a mat and saw that the dog ran to it "


def write_corpus(folder: Path, documents: int = 10) -> Path:
    """Text files of different lengths, each with its own name at the beginning of every line."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(documents):
        line = f"doc{number:02d} {WORDS}\n"
        (folder / f"{number:02d}.txt").write_text(line * (4 + number))
    return folder


def text_of(tokens) -> str:
    """The text of bytes."""
    return bytes(tokens.tolist()).decode()


def tiny_stream(folder: Path, **fields) -> TextStream:
    corpus = FileCorpus(paths=(str(folder),))
    return TextStream(**{"corpus": corpus, "tokenizer": Bytes(symbols=128), "window": 12, **fields})


def tiny_rater(stream, **fields) -> DataRater:
    """Two layers of width 8 on windows of 12 symbols."""
    return DataRater(
        **{
            "rater": TransformerRater(width=8, layers=1, heads=2),
            "model": LanguageModel(width=8, layers=1, heads=2),
            "optimizer": Adam(learning_rate=1e-2, eps_root=1e-8),
            "stream": stream,
            "batch_size": 4,
            "outer_batch_size": 4,
            "validation_size": 8,
            **fields,
        }
    )

"""Where documents come from: local files, or the text that every Python installation carries."""

from __future__ import annotations

import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from metalab.components import component, static
from metalab.documents import Document, find_files, read_documents

__all__ = ["Corpus", "FileCorpus", "PythonCorpus"]

_NOT_TEXT = {"site-packages", "__pycache__", "test", "tests", "idlelib", "lib2to3"}


class Corpus(Protocol):
    """A source of documents."""

    def documents(self, skipped: Counter[str]) -> Iterator[Document]:
        """The documents, always in the same order; what cannot be read is counted by its reason."""
        ...


@component
class PythonCorpus:
    """Source and documentation text of the running Python's standard library: no download."""

    most: int = static(2000, doc="documents at most", at_least=3)

    def documents(self, skipped: Counter[str]) -> Iterator[Document]:
        """See ``Corpus``; tests of the library are left out."""
        root = Path(sysconfig.get_paths()["stdlib"])
        found = (path for suffix in ("py", "txt", "rst") for path in root.rglob(f"*.{suffix}"))
        kept = sorted(path for path in found if not _NOT_TEXT & set(path.relative_to(root).parts))
        yield from read_documents(kept[: self.most], "text", skipped)


@component
class FileCorpus:
    """Local text files, JSON lines and Parquet files."""

    paths: tuple[str, ...] = static(doc="files, folders or globs")
    column: str = static("text", doc="that holds the text, in JSON lines and Parquet")

    def documents(self, skipped: Counter[str]) -> Iterator[Document]:
        """See ``Corpus``.

        Raises:
            ConfigError: a pattern matches nothing, or a Parquet file has no such column.
        """
        yield from read_documents(find_files(self.paths, "paths"), self.column, skipped)

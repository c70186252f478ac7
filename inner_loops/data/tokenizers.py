"""Text to symbols: bytes, or a Hugging Face ``tokenizers`` file."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from metalab.components import component, static
from metalab.errors import ConfigError

__all__ = ["BytePairs", "Bytes", "Tokenizer"]


class Tokenizer(Protocol):
    """A text as whole numbers below ``vocabulary``; 0 separates documents."""

    @property
    def vocabulary(self) -> int:
        """How many symbols there are."""
        ...

    def encode(self, text: str) -> np.ndarray:
        """[n] int32."""
        ...

    def ends(self, text: str) -> np.ndarray:
        """[n] int64, where each symbol of the text ends, in bytes of UTF-8."""
        ...


@component
class Bytes:
    """The bytes of UTF-8; fewer symbols than 256 clip what lies above to the last one."""

    symbols: int = static(256, doc="symbols; 128 is enough for ASCII", at_least=2, at_most=256)

    @property
    def vocabulary(self) -> int:
        """See ``Tokenizer``."""
        return self.symbols

    def encode(self, text: str) -> np.ndarray:
        """See ``Tokenizer``."""
        raw = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32)
        return np.minimum(raw, self.symbols - 1)

    def ends(self, text: str) -> np.ndarray:
        """See ``Tokenizer``."""
        return np.arange(1, len(text.encode("utf-8")) + 1)


@component
class BytePairs:
    """A tokenizer file of the library ``tokenizers`` (``pip install metalab[tokenizers]``)."""

    path: str = static(doc="tokenizer.json")

    @property
    def vocabulary(self) -> int:
        """See ``Tokenizer``."""
        return int(_opened(self.path).get_vocab_size()) + 1

    def encode(self, text: str) -> np.ndarray:
        """See ``Tokenizer``; the file's symbols are moved up by one, for 0 separates documents."""
        return np.asarray(_opened(self.path).encode(text).ids, np.int32) + 1

    def ends(self, text: str) -> np.ndarray:
        """See ``Tokenizer``."""
        in_bytes = np.cumsum([0, *(len(character.encode("utf-8")) for character in text)])
        return in_bytes[[stop for _, stop in _opened(self.path).encode(text).offsets]]


@functools.lru_cache(maxsize=8)
def _opened(path: str) -> Any:
    try:
        library: Any = importlib.import_module("tokenizers")
    except ModuleNotFoundError as error:
        raise ConfigError("tokenizer", "needs the library: pip install 'metalab[tokenizers]'") from error
    if not Path(path).is_file():
        raise ConfigError("tokenizer.path", f"there is no file {path!r}")
    return library.Tokenizer.from_file(path)

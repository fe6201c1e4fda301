"""Options of the MovieLens-1M preprocessor."""

from __future__ import annotations

from typing import Literal

from recbole_dtn.config.preprocess import PreprocessOptions

__all__ = ["MovieLens1MOptions"]


class MovieLens1MOptions(PreprocessOptions):
    """There is one protocol."""

    protocol: Literal["default"] = "default"

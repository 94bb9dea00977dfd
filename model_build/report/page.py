"""The report as a page, and its figures."""

from __future__ import annotations

import base64
from dataclasses import dataclass


@dataclass(frozen=True)
class Drawing:
    """An SVG file, and the words that stand for it where it is not seen."""

    words: str
    svg: bytes

    @property
    def uri(self) -> str:
        """The file as a ``data:`` URI, which an ``img`` element shows without a second file."""
        return data_uri(self.svg, "image/svg+xml")


@dataclass(frozen=True)
class Page:
    """The report as one HTML document, and the figures drawn in it. No file name and no patient stands in it."""

    text: str
    drawings: list[Drawing]


def data_uri(content: bytes, media_type: str) -> str:
    """Bytes as a ``data:`` URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"

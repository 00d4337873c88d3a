"""What an evaluation report asks of further measures, such as clinical ones."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Measure(Protocol):
    """Something that `LandmarkReport` measures beside the radial error; it sees every image once, in order."""

    name: str
    """Its key in metrics.json."""

    landmarks: Sequence[str]
    """Names of the landmarks that it is made of, in their order: an evaluation of others goes without it."""

    def clear(self) -> None:
        """Forget all images: an evaluation starts."""

    def collect(self, batch: Mapping[str, Any], output: Mapping[str, Any]) -> None:
        """Keep what it needs of one image: its item of the data loader, and of the evaluator's output."""

    def summary(self) -> dict[str, Any]:
        """Its part of metrics.json; NaN becomes null."""

    def tables(self) -> dict[str, Sequence[Sequence[Any]]]:
        """Files to write beside errors.csv by their names: a header, then rows of text and numbers; NaN stays empty."""

    def headline(self) -> str:
        """One line to print."""

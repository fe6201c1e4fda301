"""Which rows of a leaderboard are compared with which, as its file says before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from recbole_dtn.config.strict import Strict
from recbole_dtn.errors import UsageError, nearest

__all__ = ["NO_DESIGN", "Design"]


class Design(Strict):
    """The comparisons of a leaderboard.

    Attributes:
        proposed: names of the rows that are no baselines, and so are not the comparator.
        contrasts: planned comparisons: a title, and the names of two rows, the first of which is compared with the
            second. exploratory: whether they were chosen after results were known.
    """

    proposed: list[str] = []  # noqa: RUF012 (frozen)
    contrasts: dict[str, list[str]] = {}  # noqa: RUF012
    exploratory: bool = False

    def check(self, rows: Sequence[str]) -> None:
        """Refuse names that are no rows.

        Raises:
            UsageError: with the nearest name.
        """
        named = [("proposed", name) for name in self.proposed]
        named += [(f"contrasts.{title}", name) for title, pair in self.contrasts.items() for name in pair]
        for key, name in named:
            if name not in rows:
                raise UsageError(f"{key}: no row {name!r}; {nearest(name, rows)}")
        for title, pair in self.contrasts.items():
            if len(pair) != 2 or pair[0] == pair[1]:
                raise UsageError(f"contrasts.{title}: expected the names of two rows, found [{', '.join(pair)}]")
        once: dict[frozenset[str], str] = {}
        for title, pair in self.contrasts.items():
            other = once.setdefault(frozenset(pair), title)
            if other != title:
                raise UsageError(f"contrasts: {other!r} and {title!r} compare the same rows; leave one of them out")

    def among(self, rows: Sequence[str]) -> Design:
        """Without the rows that are not there."""
        kept = {title: pair for title, pair in self.contrasts.items() if set(pair) <= set(rows)}
        proposed = [name for name in self.proposed if name in rows]
        return self.model_copy(update={"proposed": proposed, "contrasts": kept})


NO_DESIGN = Design()

"""Faulty raw rows: count them, write them to ``rejected.tsv`` with file, line and reason, and refuse too many of them.

In each table, rows read = rows written + rows dropped by a rule of the protocol + rows rejected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole_dtn.data.escape import escape
from recbole_dtn.data.long_lines import MAX_LINE
from recbole_dtn.data.staging import FAILED, REJECTED
from recbole_dtn.errors import TooManyRejectedError

__all__ = ["FAILED", "REJECTED", "Rejects", "Tally", "shown"]

HEADER = "file\tline\treason\ttext\n"
# Characters of a row that are shown, and reasons of which a message shows an example.
TEXT_SHOWN = 200
EXAMPLES_SHOWN = 3
EARLY_ROWS = 100_000
"""Rows of a table before which it is read on, however many are faulty: the list of all of them helps."""
LARGEST_TABLE = 500_000_000
"""Rows of the largest table for which stopping early can be no mistake."""
HOPELESS = 10, 0.05
"""A table stops early above this multiple of the allowed share, and above this share."""


@dataclass
class Tally:
    """Counts of one raw table.

    Attributes:
        name: of the table, in words. rows_in: rows read. written: rows that the data set got.
        dropped: rows that a rule of the protocol leaves out, by rule. rejected: faulty rows, by reason.
        examples: by reason, a description of the first row with what to do about it. unit: what a row is called.
        watch: gets the texts of rejected rows.
    """

    name: str
    _owner: Rejects
    rows_in: int = 0
    written: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    unit: str = "line"
    watch: Callable[[Sequence[str | bytes]], None] | None = None

    def reject(
        self, file: str, lines: Sequence[int], reason: str, texts: Sequence[str | bytes] = (), *, example: str = ""
    ) -> None:
        """Reject rows for one reason.

        Args:
            file: as messages call it. lines: of the rows, from 1. reason: in words.
            texts: the rows themselves, shortened in the file.
            example: what is wrong with the first of them and what to do about it, for the message about too many.

        Raises:
            TooManyRejectedError: when strict, or when so many rows are rejected that the table cannot pass any more.
        """
        if not len(lines):
            return
        self.rejected[reason] += len(lines)
        where = f"{file}, {self.unit} {lines[0]}: {example or reason}"
        if not example and texts:
            where += f": {shown(texts[0])}"
        # The first row of each reason explains it.
        self.examples.setdefault(reason, where)
        if self.watch is not None:
            self.watch(texts)
        # Written before the limits are checked: the list has the row that broke them.
        self._owner.write(file, lines, reason, texts, where)
        if self._owner.is_hopeless(self):
            self._owner.check(self)

    @property
    def max_line(self) -> int:
        """Bytes of the longest line of the table."""
        return self._owner.max_line

    @property
    def rejected_rows(self) -> int:
        """Rows rejected, for any reason."""
        return self.rejected.total()

    def describe(self) -> str:
        """``skeleton: 1,000 rows in = 990 written + 7 dropped (click = 0 and buy = 1) + 3 rejected (...)``."""
        parts = [f"{self.written:,} written"]
        parts += [f"{rows:,} dropped ({rule})" for rule, rows in self.dropped.items()]
        parts.append(f"{self.rejected_rows:,} rejected")
        if self.rejected:
            parts[-1] += f" ({', '.join(f'{reason}: {rows:,}' for reason, rows in self.rejected.most_common())})"
        return f"{self.name}: {self.rows_in:,} rows in = {' + '.join(parts)}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the record of a preprocessing."""
        return {
            "rows_in": self.rows_in,
            "written": self.written,
            "dropped": dict(self.dropped),
            "rejected": dict(self.rejected),
        }


class Rejects:
    """The rejected rows of one preprocessing.

    Args:
        path: of ``rejected.tsv``, begun with its header. max_share: of rejected rows in a table, above which it is too
            many. strict: whether the first one is too many. max_line: bytes of the longest line of a raw table.
    """

    def __init__(self, path: Path, *, max_share: float, strict: bool, max_line: int = MAX_LINE) -> None:
        self.path, self.max_share, self.strict, self.max_line = path, max_share, strict, max_line
        self.tables: dict[str, Tally] = {}
        self._file = path.open("w", encoding="utf-8", newline="")
        self._file.write(HEADER)

    @property
    def count(self) -> int:
        """Rejected rows of all tables."""
        return sum(tally.rejected_rows for tally in self.tables.values())

    def table(self, name: str) -> Tally:
        """The counts of a raw table, begun at the first call."""
        return self.tables.setdefault(name, Tally(name, self))

    def write(
        self, file: str, lines: Sequence[int], reason: str, texts: Sequence[str | bytes], example: str = ""
    ) -> None:
        """Append rows to the file; :meth:`Tally.reject` counts them."""
        written = [shown(text) for text in texts] or [""] * len(lines)
        name, why = escape(file), escape(reason)
        self._file.writelines(f"{name}\t{line}\t{why}\t{text}\n" for line, text in zip(lines, written, strict=True))
        if self.strict:
            # The list must be on disk before the error leaves: it is read again from there.
            self.close()
            raise TooManyRejectedError(
                f"{example}; without --strict such rows are written to rejected.tsv and the run goes on, unless their "
                "share exceeds max_rejected"
            )

    def is_hopeless(self, tally: Tally) -> bool:
        """Whether a table certainly has too many rejected rows, however its remaining rows are.

        The limit is one of the whole table, and faulty rows often stand together: a table of up to
        :data:`LARGEST_TABLE` rows is given up only when it would have too many even if no other row were faulty.
        """
        times, share = HOPELESS
        allowed = max(times * self.max_share, share) if self.max_share else 0.0
        certain = tally.rejected_rows > self.max_share * LARGEST_TABLE
        return certain and tally.rows_in >= EARLY_ROWS and tally.rejected_rows > allowed * tally.rows_in

    def check(self, tally: Tally) -> None:
        """Whether a table, read to its end, has too many rejected rows.

        Raises:
            TooManyRejectedError: then; with the counts by reason.
        """
        if tally.rejected_rows <= self.max_share * tally.rows_in:
            return
        self.close()
        share = tally.rejected_rows / max(tally.rows_in, 1)
        raise TooManyRejectedError(
            f"{tally.name}: {tally.rejected_rows:,} of the first {tally.rows_in:,} rows are rejected ({share:.3%}), "
            f"max_rejected allows {self.max_share:.3%}: "
            + ", ".join(f"{reason} ({rows:,})" for reason, rows in tally.rejected.most_common())
            + "; see rejected.tsv, mend the raw files or raise --max_rejected. First of each:\n"
            + "\n".join(f"  {tally.examples[reason]}" for reason, _ in tally.rejected.most_common(EXAMPLES_SHOWN))
        )

    def finish(self, log: Callable[[str], None]) -> None:
        """Check the shares and the sums of all tables, and log them.

        Raises:
            TooManyRejectedError: when a table has too many rejected rows.
        """
        for tally in self.tables.values():
            self.check(tally)
        for tally in self.tables.values():
            total = tally.written + tally.dropped.total() + tally.rejected_rows
            # A fault of the program, not of the data: no row may vanish without a count.
            if total != tally.rows_in:
                raise RuntimeError(f"rows were lost or doubled: {tally.describe()}, which is {total:,}")
            log(tally.describe())
        self.close()

    def close(self) -> None:
        """Close the file; harmless when it is closed."""
        self._file.close()


def shown(text: str | bytes) -> str:
    """A row for a message or ``rejected.tsv``: shortened, on one line."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="backslashreplace")
    return escape(text if len(text) <= TEXT_SHOWN else f"{text[:TEXT_SHOWN]}...")

"""What a run looks at in its inputs before it trains, on a sample, once per entry of the cache."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_dtn.data.sums import read_signed, write_signed
from recbole_dtn.inspect.info.report import SingleFieldAuc
from recbole_dtn.inspect.info.suspects import single_field_aucs
from recbole_dtn.inspect.info.telling import Telling, telling_inputs
from recbole_dtn.inspect.info.view import StoreView
from recbole_dtn.report.text import share

if TYPE_CHECKING:
    from recbole_dtn.preprocess.prepare import PreparedData

__all__ = ["ALMOST_PERFECT", "FILE_NAME", "InputFindings", "input_findings", "input_sentences", "outcome_names"]

ALMOST_PERFECT = 0.99
"""AUC of one input alone above which it is taken for an outcome."""
FILE_NAME = "inputs.json"
FORMAT = 1
SAMPLED = 100_000
STRETCH = 1_000
"""Rows looked at, and how many of them are neighbours in the data."""

OUTCOMES = {
    r"(play|watch|view|listen|read|stay|dwell|session)(ing|ed)?_?(time|duration|secs?|seconds|ms|ratio|length)": (
        "the time that was watched or stayed"
    ),
    r"dwell|time_?spent|duration_?(watched|viewed|played)|completion|(watched|played|viewed)_?(share|ratio|fraction)": (
        "the time that was watched or stayed"
    ),
    r"(purchase|order|payment|transaction|basket|cart)_?(amount|value|price|total|time)|paid_?amount|gmv|revenue": (
        "what was bought or paid"
    ),
    r"(conversion|purchase|click|pay|order|install|attribution)_?(delay|lag|timestamp|time|ts)|time_?to_?\w+": (
        "when something happened"
    ),
    r"is_?(click|like|follow|comment|forward|share|hate|purchase|conversion|install|converted)(ed|d)?": (
        "a reaction to the row"
    ),
    r"converted|clicked|purchased|profile_?(enter|stay_?time)": "a reaction to the row",
}
"""Names of columns that are usually measured after the row was shown, and what they measure."""
PATTERNS = {re.compile(rf"(^|_)({words})(_?(ms|s|sec|secs|seconds))?$"): what for words, what in OUTCOMES.items()}


@dataclass(frozen=True)
class InputFindings:
    """Statistics of the inputs alone, on ``rows`` training rows."""

    rows: int
    aucs: tuple[SingleFieldAuc, ...]
    telling: tuple[Telling, ...]


def input_findings(prepared: PreparedData) -> InputFindings:
    """Each field alone and the inputs that tell one class, on up to 100,000 training rows.

    The result is kept in the folder of the cache entry, where that can be written.
    """
    path = prepared.cache_folder / FILE_NAME
    kept = _read(path)
    if kept is not None:
        return kept
    view = StoreView(prepared)
    rows = view.sample("train", SAMPLED, STRETCH)
    aucs, _ = single_field_aucs(view, rows=rows)
    found = InputFindings(len(rows), aucs, telling_inputs(view, prepared.vocabularies, rows, *view.labels_of(rows)))
    # A folder that is gone or read-only costs another computation, and no more.
    if path.parent.is_dir():
        with suppress(OSError):
            write_signed(path, {"format": FORMAT, **asdict(found)})
    return found


def _read(path: Path) -> InputFindings | None:
    content: dict[str, Any] | None = read_signed(path)
    if content is None or content.get("format") != FORMAT:
        return None
    try:
        aucs = tuple(SingleFieldAuc(**one) for one in content["aucs"])
        return InputFindings(int(content["rows"]), aucs, tuple(Telling(**one) for one in content["telling"]))
    except (KeyError, TypeError, ValueError):  # cut off, or of another version
        return None


def input_sentences(
    fields: Sequence[str],
    aucs: Sequence[SingleFieldAuc],
    telling: Sequence[Telling],
    *,
    above: float = ALMOST_PERFECT,
) -> Iterator[str]:
    """Sentences on inputs that may be outcomes, one per field and task.

    Args:
        fields: names of all inputs; names that are those of outcomes come last, where nothing else was said of them.
        aucs: of single fields. telling: what tells one class. above: the AUC above which a field is named.
    """
    named = {(one.field, one.task) for one in aucs if one.auc > above}
    for one in aucs:
        if one.auc > above:
            yield f"field {one.field!r} alone gives AUC {one.auc:.2f} for task {one.task!r}: is it an outcome?"
    for found in telling:
        if (found.field, found.task) not in named:
            yield _told(found)
    said = {field for field, _ in named} | {found.field for found in telling}
    yield from outcome_names([name for name in fields if name not in said])


def _told(found: Telling) -> str:
    rows = f"{found.rows:,} of {found.observed:,} training rows"
    outcome = f"{found.task} is {found.label} in all of them (in {share(found.share, 1)} of all rows)"
    advice = f"take {found.field!r} out of the fields if it is known only afterwards"
    if found.kind == "set":
        has = "has a value" if found.value == "missing" else f"is other than {found.value!r}"
        return f"field {found.field!r} {has} in {rows}, and {outcome}: is it recorded after the outcome? {advice}"
    has = "is missing" if found.value == "missing" else f"has the value {found.value!r}"
    more = ("", " (another value does the same)")[found.others] if found.others < 2 else (
        f" ({found.others:,} other values do the same)"
    )  # fmt: skip
    return f"field {found.field!r} {has} in {rows}, and {outcome}{more}: does it tell the outcome? {advice}"


def outcome_names(fields: Sequence[str]) -> Iterator[str]:
    """Sentences on fields whose names are those of outcomes.

    Args:
        fields: names of inputs.

    >>> [text.split(":")[0] for text in outcome_names(["play_time_ms", "age", "release_time", "play_time"])]
    ["field 'play_time_ms' has the name of an outcome", "field 'play_time' has the name of an outcome"]
    """
    for name in fields:
        what = next((what for pattern, what in PATTERNS.items() if pattern.search(name.lower())), None)
        if what is not None:
            yield (
                f"field {name!r} has the name of an outcome: if it is {what} in this very row, it is not known when "
                "a prediction is made, and does not belong in the fields (a history of earlier rows does)"
            )

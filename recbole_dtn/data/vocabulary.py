"""Vocabularies of the training split, and the schema built from them.

Ids are local to a field: 0 absent, 1 unknown or rarer than ``min_count``, then the training tokens by count
(descending), ties by bytes. Tokens are kept as the atomic files spell them (:mod:`recbole_dtn.data.escape`); raw
values are spelled that way before they are looked up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from recbole_dtn.config.settings import FieldSettings
from recbole_dtn.data.atomic import missing_mask
from recbole_dtn.data.escape import HOSTILE, HOSTILE_IN_SEQUENCE, escape_series, is_escaped_form
from recbole_dtn.data.features import Features, MultiValued
from recbole_dtn.data.floats import Floats, FloatStatistics, bin_ids
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.schema import ABSENT, FIRST_TOKEN, UNKNOWN, DataSchema, FieldSpec

__all__ = ["FloatStatistics", "TokenVocabulary", "Vocabularies", "bin_ids", "float_options"]

Ids = npt.NDArray[np.int64]

ROWS_PER_THREAD = 2048
"""Below this number of rows, Polars looks the columns up faster one after another than on its threads."""


@dataclass(frozen=True)
class TokenVocabulary:
    """Training tokens of one field, in the order of their ids; ``rare`` training tokens fell below ``min_count``."""

    series: pl.Series
    rare: int

    @classmethod
    def from_counts(cls, tokens: pl.Series, counts: npt.NDArray[np.int64], min_count: int) -> TokenVocabulary:
        """Order ``tokens`` by their ``counts`` in training; a count of 0 is not a training token."""
        return cls.ranked(tokens, counts, min_count)[0]

    @classmethod
    def ranked(
        cls,
        tokens: pl.Series,
        counts: npt.NDArray[np.int64],
        min_count: int,
        training: npt.NDArray[np.int64] | None = None,
    ) -> tuple[TokenVocabulary, Ids]:
        """A vocabulary, and the local id of each of ``tokens`` in it.

        Args:
            tokens: distinct. counts: how often each was shown; 0 is no token of the vocabulary.
            min_count: tokens with a smaller count are rare. training: counts in the training split, if ``counts``
                includes other splits.

        >>> known, ids = TokenVocabulary.ranked(pl.Series(["a", "b", "c"]), np.array([1, 3, 0]), 1)
        >>> known.series.to_list(), ids.tolist()
        (['b', 'a'], [3, 2, 1])
        """
        # Only frequent tokens are sorted: most tokens of a large field are rare.
        codes = np.flatnonzero(counts >= max(min_count, 1))
        frame = pl.DataFrame({"code": codes, "token": tokens.gather(codes), "count": counts[codes]})
        # Ties by bytes make the ids independent of the order in which the files are read.
        kept = frame.sort(["count", "token"], descending=[True, False])
        ids = np.full(len(tokens), UNKNOWN, np.int64)
        ids[kept["code"].to_numpy()] = np.arange(FIRST_TOKEN, FIRST_TOKEN + kept.height)
        seen = counts if training is None else training
        return cls(kept["token"].cast(pl.String), int(np.count_nonzero((seen > 0) & (ids == UNKNOWN)))), ids

    @property
    def size(self) -> int:
        """Rows of the embedding table: absent, unknown and the tokens."""
        return FIRST_TOKEN + len(self.series)

    def look_up(self, column: str) -> pl.Expr:
        """Position of each text of ``column`` among the tokens, null for none. The expression owns the hash table."""
        return pl.col(column).cast(pl.Enum(self.series), strict=False).to_physical().cast(pl.Int64)

    @cached_property
    def _places(self) -> pl.Expr:
        return self.look_up("token")

    @cached_property
    def literal(self) -> bool:
        """Whether some token is not in the form that ``escape`` writes: raw values are then looked up as they are."""
        # A foreign ``%41`` stands for itself: escaping it would look up ``%2541``.
        suspects = self.series.filter(self.series.str.contains("%[0-9A-Fa-f]{2}"))
        return not all(is_escaped_form(token) for token in suspects)

    @cached_property
    def _plain(self) -> bool:
        return not self.series.str.contains(HOSTILE).any()

    @cached_property
    def _plain_in_sequence(self) -> bool:
        return not self.series.str.contains(HOSTILE_IN_SEQUENCE).any()

    def spelled(self, values: pl.Series, *, in_sequence: bool = False) -> pl.Series:
        """Raw values as the tokens are spelled.

        Where no token is escaped, a value that would be escaped is unknown in either spelling: no per-value check is
        needed.
        """
        if (self._plain_in_sequence if in_sequence else self._plain) or self.literal:
            return values
        return escape_series(values, in_sequence=in_sequence)

    def ids(self, tokens: pl.Series) -> Ids:
        """Local ids of tokens as the atomic files spell them; null and empty are absent."""
        places = pl.DataFrame({"token": tokens}).select_seq(self._places).to_numpy()
        return _from_places(_filled(places)[:, 0], tokens)

    def raw_ids(self, values: pl.Series, *, in_sequence: bool = False) -> Ids:
        """Local ids of raw values."""
        return self.ids(self.spelled(values, in_sequence=in_sequence))


def _filled(places: npt.NDArray[Any]) -> Ids:
    """Integers from a Polars result that is float where some values are null; nulls are replaced by -1."""
    if places.dtype.kind != "f":
        return places
    # Places are far below 2^53, so that float64 holds them exactly.
    return np.where(np.isnan(places), -1, places).astype(np.int64)


def _from_places(places: Ids, tokens: pl.Series) -> Ids:
    """Local ids of tokens from their places in the vocabulary."""
    ids: Ids = places + FIRST_TOKEN
    # Place -1 (no token) gives an id below FIRST_TOKEN; only these few texts are looked at to tell absent from unknown.
    missing = np.flatnonzero(ids < FIRST_TOKEN)
    if len(missing):
        others = tokens.gather(missing)
        ids[missing] = np.where((others.is_null() | (others == "")).to_numpy(), ABSENT, UNKNOWN)
    return ids


Vocabulary = TokenVocabulary | FloatStatistics


def float_options(spec: FieldSettings) -> dict[str, Any]:
    """How a float field is encoded, as the arguments of :meth:`FloatStatistics.from_blocks`."""
    return {
        "bins": spec.bins if spec.encoding in ("bins", "auto") else None,
        "only_skewed": spec.encoding == "auto",
        "clip": spec.clip,
        "log1p": spec.encoding == "log1p",
    }


@dataclass(frozen=True)
class Vocabularies:
    """Tokens and statistics of each field in the training split; enough to encode new rows.

    Attributes:
        fields: per field its tokens, or its float statistics.
        domains: tokens of ``domain_field``, domain d being the d-th; empty without one.
        domain_field: its column.
    """

    fields: Mapping[str, Vocabulary]
    domains: tuple[str, ...] = ()
    domain_field: str | None = None
    # Caches: the tokens as Python texts, and the look-up expression (with its hash table) of each field.
    _lists: dict[str, list[str]] = field(default_factory=dict, compare=False, repr=False)
    _places: dict[str, pl.Expr] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def from_counts(
        cls,
        fields: Sequence[FieldSettings],
        counts: Mapping[str, Mapping[str, int]],
        floats: Mapping[str, npt.NDArray[Any]],
        *,
        min_count: int = 1,
    ) -> Vocabularies:
        """From training columns that are in memory already.

        Args:
            fields: the fields' settings. counts: per token field, how often training shows each token.
            floats: per float field the training values, NaN where absent. min_count: for fields that name none.

        >>> made = Vocabularies.from_counts([FieldSettings(name="u")], {"u": {"a": 1, "b": 2}}, {})
        >>> made.tokens("u"), made.lookup("u", ["a", "b", "c", ""]).tolist()
        (['b', 'a'], [3, 2, 1, 0])
        """
        made: dict[str, Vocabulary] = {}
        for spec in fields:
            if spec.type == "float":
                made[spec.name] = FloatStatistics.from_values(floats[spec.name], **float_options(spec))
            else:
                tokens = pl.Series(list(counts[spec.name]), dtype=pl.String)
                numbers = np.fromiter(counts[spec.name].values(), np.int64, len(tokens))
                made[spec.name] = TokenVocabulary.from_counts(tokens, numbers, spec.min_count or min_count)
        return cls(made)

    def tokens(self, name: str) -> list[str]:
        """Training tokens of a field in the order of their ids, from id 2; none for a float."""
        if name not in self._lists:
            found = self.fields[name]
            self._lists[name] = found.series.to_list() if isinstance(found, TokenVocabulary) else []
        return self._lists[name]

    def lookup(self, name: str, tokens: Sequence[str] | pl.Series) -> Ids:
        """Local ids of tokens as the atomic files spell them: 0 empty, 1 unknown, then the vocabulary."""
        found = self.fields[name]
        if not isinstance(found, TokenVocabulary):
            raise TypeError(f"field {name!r} is a number, it has no tokens")
        return found.ids(tokens if isinstance(tokens, pl.Series) else pl.Series(list(tokens), dtype=pl.String))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint; the tokens of a field are one text, a token a line (none holds a line break).

        >>> made = Vocabularies.from_counts([FieldSettings(name="u")], {"u": {"a": 1}}, {})
        >>> Vocabularies.from_dict(made.to_dict()).tokens("u")
        ['a']
        """
        content: dict[str, Any] = {}
        for name, found in self.fields.items():
            if isinstance(found, TokenVocabulary):
                content[name] = {"tokens": found.series.str.join("\n").first() or "", "rare": found.rare}
            else:
                content[name] = {
                    "mean": found.mean, "std": found.std, "edges": list(found.edges), "clip": found.clip,
                    "log1p": found.log1p,
                }  # fmt: skip
        return {"fields": content, "domains": list(self.domains), "domain_field": self.domain_field}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Vocabularies:
        """Rebuild what :meth:`to_dict` gave."""
        fields: dict[str, Vocabulary] = {}
        for name, content in data["fields"].items():
            if "tokens" in content:
                tokens = content["tokens"].split("\n") if content["tokens"] else []
                fields[name] = TokenVocabulary(pl.Series(tokens, dtype=pl.String), content["rare"])
            else:
                fields[name] = FloatStatistics(
                    content["mean"],
                    content["std"],
                    tuple(content["edges"]),
                    content.get("clip"),
                    content.get("log1p", False),
                )
        return cls(fields, tuple(data["domains"]), data["domain_field"])

    def encode(self, frame: pl.DataFrame, schema: DataSchema, *, escaped: bool = False) -> Features:
        """Raw field values, as a user has them -> a batch without labels.

        Args:
            frame: a column per field, others are ignored. A multi-valued field is a list column, or text with spaces
                between the values.
            schema: of the model that will read the batch.
            escaped: whether tokens come from an atomic file, spelled as one has them; its words for a missing value
                (``NA``) are absent then, as in training.

        Returns:
            Features of ``frame.height`` rows. An unknown token has the id 1 of its field, a null the id 0.

        Raises:
            UsageError: for a missing column or one of another kind.
        """
        rows = frame.height
        columns = {column.name: column for column in frame.iter_columns()}
        # -1 stays in the columns of fields without a single id: multi-valued ones, and numbers that are not binned.
        ids = np.full((rows, schema.num_fields), -1, np.int64)
        multi: dict[int, MultiValued] = {}
        dense: list[Floats] = []
        singles: dict[int, pl.Series] = {}
        for position, spec in enumerate(schema.fields):
            column, known = _column(columns, spec.name), self.fields[spec.name]
            if isinstance(known, FloatStatistics):
                values = _numbers(column, spec.name)
                if spec.bins:
                    ids[:, position] = spec.offset + bin_ids(values, spec.bins)
                else:
                    dense.append(known.standardise(values))
            elif spec.kind == "token":
                texts = _texts(column, spec.name)
                singles[position] = _without_words(texts) if escaped else known.spelled(texts)
            else:
                multi[position] = _many(columns, spec, known, escaped=escaped)
        if singles:
            self._look_up(singles, schema, ids)
        return Features(
            ids=torch.from_numpy(ids),
            multi=multi,
            dense=torch.from_numpy(np.stack(dense, 1) if dense else np.empty((rows, 0), np.float32)),
            labels=torch.empty(rows, 0),
            observed=torch.empty(rows, 0, dtype=torch.bool),
            domain=self._domain(frame, escaped=escaped),
        )

    def _look_up(self, columns: Mapping[int, pl.Series], schema: DataSchema, ids: Ids) -> None:
        """Write the rows of the joint table into ``ids``, all single-valued columns in one query."""
        names = [schema.fields[position].name for position in columns]
        for name in names:
            if name not in self._places:
                known = self.fields[name]
                assert isinstance(known, TokenVocabulary)
                self._places[name] = known.look_up(name)
        texts = pl.DataFrame([column.alias(name) for name, column in zip(names, columns.values(), strict=True)])
        select = texts.select if texts.height >= ROWS_PER_THREAD else texts.select_seq
        # places: (B, S) for the S single-valued columns; -1 (a negative id) where a text is no token.
        places = _filled(select([self._places[name] for name in names]).to_numpy())
        offsets = [schema.fields[position].offset for position in columns]
        found = places + (np.array(offsets) + FIRST_TOKEN)
        tokens = list(columns.values())
        # Only columns with a text that is no token are corrected: absent (0) or unknown (1).
        for number in np.flatnonzero((places < 0).any(axis=0)):
            found[:, number] = offsets[number] + _from_places(places[:, number], tokens[number])
        ids[:, list(columns)] = found

    def _domain(self, frame: pl.DataFrame, *, escaped: bool) -> torch.Tensor | None:
        if self.domain_field is None or self.domain_field not in frame.columns:
            return None
        values = _texts(frame[self.domain_field], self.domain_field)
        values = values if escaped else escape_series(values)
        found = values.cast(pl.Enum(self.domains), strict=False).to_physical().cast(pl.Int64)
        if found.null_count():
            raise UsageError(f"domain_field {self.domain_field!r}: a value is none of {', '.join(self.domains)}")
        return torch.from_numpy(found.to_numpy().copy())


def _column(columns: Mapping[str, pl.Series], name: str) -> pl.Series:
    if name not in columns:
        typed = next((column for column in columns if column.startswith(f"{name}:")), None)
        hint = nearest(name, list(columns)).replace("known:", "their columns:")
        if typed is not None:
            hint = f"rename {typed!r}, since columns are named without a type"
        raise UsageError(f"the rows have no column {name!r}, a field of this data set: {hint}")
    return columns[name]


def _texts(column: pl.Series, name: str) -> pl.Series:
    if column.dtype == pl.String:
        return column
    if column.dtype.is_float():
        raise UsageError(
            f"field {name!r} holds tokens, the column holds {column.dtype}: cast it to text or to an integer, so that "
            "each value is spelled as in the data"
        )
    if column.dtype.is_nested():
        raise UsageError(f"field {name!r} holds one token per row, the column holds {column.dtype}")
    return column.cast(pl.String)


def _numbers(column: pl.Series, name: str) -> npt.NDArray[np.float64]:
    texts = column.replace("", None) if column.dtype == pl.String else column
    try:
        return texts.cast(pl.Float64).to_numpy().astype(np.float64)
    except pl.exceptions.PolarsError as error:
        raise UsageError(f"field {name!r} holds numbers, the column ({column.dtype}) does not: {error}") from None


def _lists(column: pl.Series, name: str) -> pl.Series:
    """A list column, no list missing; text is split at its spaces."""
    if column.dtype == pl.String:
        column = column.str.split(" ").list.filter(pl.element() != "")
    if not isinstance(column.dtype, pl.List):
        raise UsageError(f"field {name!r} is multi-valued: expected a list or text column, found {column.dtype}")
    return column.fill_null(pl.Series([[]], dtype=column.dtype))


def _without_words(texts: pl.Series) -> pl.Series:
    """Texts of an atomic file, null where they are a word for a missing value."""
    missing = missing_mask(texts)
    return texts.set(missing, None) if missing.any() else texts


def _many(
    columns: Mapping[str, pl.Series], spec: FieldSpec, known: TokenVocabulary, *, escaped: bool = False
) -> MultiValued:
    column = _lists(columns[spec.name], spec.name)
    rows = pl.DataFrame({"row": np.arange(len(column)), "value": column})
    exploded = ["value"]
    if spec.weights is not None:
        weights = _lists(_column(columns, spec.weights), spec.weights)
        # Compared before empty values are dropped: a value and its weight are dropped together.
        if (weights.list.len() != column.list.len()).any():
            raise UsageError(f"field {spec.name!r} and its weights {spec.weights!r} differ in length in some row")
        rows = rows.with_columns(weight=weights)
        exploded.append("weight")
    # Exploding an empty list gives a null; neither a null nor an empty text is a value.
    rows = rows.explode(exploded)
    rows = rows.with_columns(value=_texts(rows["value"], spec.name)).filter(pl.col("value").fill_null("") != "")
    # Row r owns the values offsets[r] to offsets[r + 1]; bincount counts the values of each row, also of empty ones.
    offsets = np.zeros(len(column) + 1, np.int64)
    np.cumsum(np.bincount(rows["row"].to_numpy(), minlength=len(column)), out=offsets[1:])
    texts = rows["value"]
    ids = known.ids(_without_words(texts)) if escaped else known.raw_ids(texts, in_sequence=True)
    values = torch.from_numpy(ids + spec.offset)
    found = None
    if spec.weights is not None:
        found = torch.from_numpy(_numbers(rows["weight"], spec.weights).astype(np.float32))
    return MultiValued(values, torch.from_numpy(offsets), found)

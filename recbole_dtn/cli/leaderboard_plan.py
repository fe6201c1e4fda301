"""The plan of a leaderboard: which cells its file and its options name."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_dtn.cli.arguments import split_words
from recbole_dtn.cli.leaderboard_options import COMMANDS, FLOORS
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.leaderboard.archive import SUFFIX
from recbole_dtn.leaderboard.design import NO_DESIGN, Design
from recbole_dtn.plugins import check_named
from recbole_dtn.registry import MODELS, load_plugins

if TYPE_CHECKING:
    from recbole_dtn.leaderboard.board import BoardFile, Entry
    from recbole_dtn.leaderboard.cells import Cell
    from recbole_dtn.leaderboard.datasets import DataEntry
    from recbole_dtn.leaderboard.plan import BoardPlan, MatchWanted, TuneWanted

__all__ = ["FILES", "Plan", "board_file", "plan_of"]

FILES = (".yaml", ".yml", SUFFIX)
"""How the names of a leaderboard's file and of its records end."""


def board_file(words: list[str], *, archives: bool = False) -> Path | None:
    """The leaderboard's file among the words of the command; with ``archives`` the file of its records is one too.

    Raises:
        UsageError: for any other word.
    """
    rest = words[1:] if words[:1] and words[0] in COMMANDS else words
    if not rest:
        return None
    if len(rest) > 1 or not rest[0].endswith(FILES if archives else FILES[:2]):
        unknown = next((word for word in rest if not word.endswith(FILES)), rest[-1])
        kinds = f"(.yaml, or {SUFFIX})" if archives else "(.yaml)"
        raise UsageError(
            f"leaderboard: unknown word {unknown!r}; {nearest(unknown, COMMANDS)}, or the file of a leaderboard {kinds}"
        )
    return Path(rest[0])


@dataclass(frozen=True)
class Plan:
    """Which cells a leaderboard has, as :func:`~recbole_dtn.leaderboard.cells.plan_cells` takes them."""

    models: list[Entry]
    datasets: list[DataEntry]
    seeds: list[int] | None
    overrides: list[str]
    settings: tuple[str, ...]
    split_seeds: list[int] | None
    floors: list[str]
    design: Design
    match: MatchWanted | None = None
    tune: TuneWanted | None = None

    def name_of(self, file: Path | None) -> str:
        """Name of the leaderboard's files: that of its own file, or the data sets'."""
        from recbole_dtn.leaderboard.datasets import board_name

        return file.stem if file else board_name(self.datasets)

    def cells(self, chosen: BoardPlan | None = None) -> list[Cell]:
        """The cells, their settings checked; ``chosen``: with the settings that were chosen for the rows."""
        from recbole_dtn.leaderboard.cells import plan_cells

        return plan_cells(
            self.models, self.datasets, self.seeds, self.overrides, settings=self.settings,
            split_seeds=self.split_seeds, floors=self.floors, chosen=None if chosen is None else chosen.words,
        )  # fmt: skip


def plan_of(given: argparse.Namespace, file: Path | None) -> Plan:
    """The plan of a leaderboard's file and of options; its plug-ins are loaded."""
    from recbole_dtn.leaderboard.board import listed, read_board, setting_words

    board = read_board(file) if file else None
    known = board.entries if board else []
    models = [_row_named(name, known) for name in split_words(given.models or "")] or known
    planned = board.data if board else []
    named = split_words(given.datasets or "")
    datasets = [entry for name in named for entry in _of_board(name, planned)] if named else planned
    for name, values in (("models", models), ("datasets", datasets)):
        if not values:
            raise UsageError(f"--{name} is needed, or a file that has it: leaderboard run BOARD.yaml; --help shows how")
    named, also = split_words(given.plugins or ""), board.plugins if board else []
    load_plugins(named)
    check_named(also, str(file), beside=named, trust=given.trust)
    plugins = [*named, *(path for path in also if path not in named)]
    load_plugins(plugins)
    floors = split_words(FLOORS if given.floors is None else given.floors)
    if given.floors is None and board and board.floors is not None:
        floors = board.floors
    floors = [] if floors == ["none"] else floors
    rows_of_file = [row.name for row in known]
    for row in models:
        if row.model not in MODELS.names() and rows_of_file and row not in known:
            hint = nearest(row.model, [*rows_of_file, *MODELS.names()])
            raise UsageError(f"--models: {row.name!r} is no row of {file}, and no model; {hint}")
    for name in (*(entry.model for entry in models), *floors):
        MODELS.entry(name)
    rows = [*(entry.name for entry in models), *floors]
    design = NO_DESIGN
    if board:
        design = Design(proposed=board.proposed, contrasts=board.contrasts, exploratory=board.exploratory)
    if given.models or given.floors is not None:  # other rows than the file has
        design = design.among(rows)
    if given.proposed:
        design = design.model_copy(update={"proposed": split_words(given.proposed)})
    design.check(rows)
    folds = given.folds or (board.folds if board else None)
    overrides = [
        *([f"--plugins={','.join(plugins)}"] if plugins else []),
        *(["--trust"] if given.trust else []),
        *given.settings,
        *([f"--folds={folds}"] if folds else []),
    ]
    from recbole_dtn.leaderboard.cells import parse_seeds

    seeds = given.seeds or (listed(board.seeds) if board else None)
    splits = given.split_seeds or (listed(board.split_seeds) if board else None)
    return Plan(
        models,
        datasets,
        parse_seeds(seeds) if seeds else None,
        overrides,
        setting_words(board.settings) if board else (),
        parse_seeds(splits, "split_seeds") if splits else None,
        floors,
        design,
        _match(given, board, rows),
        _tune(given, board),
    )


def _row_named(name: str, known: list[Entry]) -> Entry:
    """The row of a leaderboard's file under a name of ``--models``; else that of a model with its defaults."""
    from recbole_dtn.leaderboard.board import Entry

    return next((row for row in known if row.name == name), None) or Entry.of(name)


def _of_board(name: str, planned: list[DataEntry]) -> list[DataEntry]:
    """The data sets of a leaderboard's file under a name of ``--datasets``; else the data set of that name."""
    from recbole_dtn.leaderboard.datasets import data_entries

    return [entry for entry in planned if entry.shown == name] or data_entries(name)


def _match(given: argparse.Namespace, board: BoardFile | None, rows: list[str]) -> MatchWanted | None:
    """How rows are matched, by options or the file.

    Raises:
        UsageError: for an unknown size, or a reference that is not among the rows.
    """
    from recbole_dtn.leaderboard.match import MATCHED
    from recbole_dtn.leaderboard.plan import MatchWanted

    by = given.match or (board.match if board else "none")
    if by not in (*MATCHED, "none"):
        raise UsageError(f"--match: expected {', '.join(MATCHED)} or none; {nearest(by, [*MATCHED, 'none'])}")
    if by == "none":
        for key in ("reference", "match_tolerance"):
            if getattr(given, key) is not None:
                raise UsageError(f"--{key}: rows are not matched; add --match, such as --match=dense")
        return None
    reference = given.reference or (board.reference if board else None)
    if reference is None:
        raise UsageError(f"match: {by}: expected the name of a row under reference (--reference=DTN)")
    if reference not in rows and given.models and given.reference is None:
        raise UsageError(
            f"--models: the rows of the leaderboard are matched to {reference}, which is not among them: name it too, "
            "or give --reference=ROW or --match=none"
        )
    tolerance = given.match_tolerance
    if tolerance is not None and tolerance <= 0:
        raise UsageError(f"--match_tolerance: expected a share above 0, found {tolerance:g}")
    return MatchWanted(by=by, reference=reference, tolerance=tolerance or (board.match_tolerance if board else 0.05))


def _tune(given: argparse.Namespace, board: BoardFile | None) -> TuneWanted | None:
    """How rows are tuned, by options or the file."""
    from recbole_dtn.leaderboard.plan import TuneWanted

    wanted = board.tune if board else None
    if given.trials is None:
        return wanted
    if given.trials < 0:
        raise UsageError(f"--trials: expected 0 or more, found {given.trials}")
    if given.trials == 0:
        return None
    return wanted.model_copy(update={"trials": given.trials}) if wanted else TuneWanted(trials=given.trials)

"""``leaderboard [render|speed|serve|diff]``: tables, pages and comparisons of what is recorded."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_dtn.cli.arguments import split_words
from recbole_dtn.cli.leaderboard_options import DIFF, OUTPUT, RENDER, SERVE, SPEED
from recbole_dtn.cli.leaderboard_plan import FILES, Plan, board_file, plan_of
from recbole_dtn.errors import UsageError
from recbole_dtn.leaderboard.archive import SUFFIX, archive_file
from recbole_dtn.leaderboard.design import Design
from recbole_dtn.registry import load_plugins
from recbole_dtn.report.console import make_console, say
from recbole_dtn.report.files import check_place, write_text

if TYPE_CHECKING:
    from recbole_dtn.leaderboard.cells import Cell
    from recbole_dtn.leaderboard.plan import BoardPlan
    from recbole_dtn.leaderboard.remake import Remade

__all__ = ["diff", "found_of", "measure_rows", "render", "serve", "speed", "write_found"]

SHOWN_MISSING = 5
"""Most cells without a record that are named."""


def render(words: list[str]) -> int:
    """Write the tables and the page from records."""
    given = RENDER.parse(words, most_words=len(words))
    file = board_file(given.words, archives=True)
    from recbole_dtn.leaderboard.forms import FORMS, parse_forms

    forms = parse_forms(split_words(given.format)) if given.format is not None else FORMS
    output = _output(given, file)
    check_place(output, f"--output={output}")
    write_found(_finder(given, file, output)(), output, given.name, forms, given.records)
    return 0


def write_found(
    found: Remade, output: Path, name: str | None = None, forms: Sequence[str] | None = None, below: str | None = None
) -> None:
    """Write the tables and the page of records, and say which cells have none."""
    from recbole_dtn.leaderboard.failures import with_reasons, write_failures
    from recbole_dtn.leaderboard.forms import FORMS, write_forms
    from recbole_dtn.leaderboard.statistics import summarise
    from recbole_dtn.leaderboard.stored import Stored, compute_statistics

    console = make_console()
    for message in found.unreadable:
        say(console, f"left out: {message}")
    for plugin, number in found.changed.items():
        say(console, f"the plug-in {plugin} changed since {number} of these runs; `leaderboard run` runs them again")
    if found.missing:
        titles = "; ".join(cell.title for cell in found.missing[:SHOWN_MISSING])
        more = len(found.missing) - SHOWN_MISSING
        say(console, f"no record of {len(found.missing)} cells: {titles}" + (f"; and {more} more" if more > 0 else ""))
    if not found.records:
        where = f"in {found.name}{SUFFIX}" if found.beside else f"below {below or 'output_dir'}"
        raise UsageError(f"no finished run {where}; {_what_else(found.unreadable)}")
    name = name or found.name
    # A file that is not in the folder of the tables may have been kept with the records.
    stored = Stored.read(name, output, Path(below) if below else None)
    if found.missing is not None:
        stored = replace(stored, failures=write_failures(with_reasons(found.missing, stored.failures), output, name))
    if found.beside is not None:
        stored = stored.or_else(Stored.read(found.name, found.beside))
    rows = summarise(found.records, found.names, found.design)
    stored = compute_statistics(rows, found.records, stored, found.folder_of, output / f"{name}.statistics.json")
    if untested := stored.untested:
        say(console, f"differences of {len(untested)} pairs of rows are not tested, the first: {untested[0]}")
    paths = write_forms(
        found.records, found.names, output, name, forms or FORMS,
        design=found.design, stored=stored, plan=found.plan,
    )  # fmt: skip
    say(console, f"{len(found.records)} runs: {', '.join(map(str, paths))}")


def _what_else(unreadable: Sequence[str]) -> str:
    """What to do where no run was found."""
    if not unreadable:
        return "`leaderboard run` makes them"
    more = f", and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
    return f"left out: {unreadable[0]}{more}"


def speed(words: list[str]) -> int:
    """Measure the rows one at a time, and write the tables again."""
    given = SPEED.parse(words, most_words=len(words))
    file = board_file(given.words)
    if given.seconds < 1:
        raise UsageError(f"--seconds: expected 1 or more, found {given.seconds}")
    plan = plan_of(given, file)
    some = file is not None and (given.models is not None or given.datasets is not None)
    measure_rows(plan, plan.name_of(file), Path(given.output), given.seconds, tables=not some)
    if some:  # the tables have all rows of the file
        say(make_console(), f"leaderboard render {file} writes them into the tables")
    return 0


def measure_rows(plan: Plan, board: str, output: Path, seconds: float = 5.0, *, tables: bool = True) -> None:
    """Measure the rows one at a time; ``tables``: whether those are written again with what was measured."""
    from recbole_dtn.leaderboard.forms import write_forms
    from recbole_dtn.leaderboard.remake import of_cells
    from recbole_dtn.leaderboard.speed import measure_board

    chosen, console = _chosen(plan, [output], board), make_console()
    cells = plan.cells(chosen)
    found = of_cells(cells, None, board, archive=archive_file(output, board))
    runs = {
        (run.dataset, run.settings_digest): folder
        for run in found.records
        if (folder := found.folder_of(run)) is not None and folder.is_dir()
    }
    try:
        path = measure_board(
            cells, lambda cell: runs.get((cell.key.dataset, cell.key.settings_digest)), output, board, console,
            seconds=seconds,
        )  # fmt: skip
        say(console, f"speeds written to {path}")
    finally:
        if tables and found.records:
            write_forms(found.records, found.names, output, board, design=plan.design, plan=chosen)


def serve(words: list[str]) -> int:
    """Serve the page until Ctrl-C."""
    given = SERVE.parse(words, most_words=len(words))
    file = board_file(given.words, archives=True)
    if not 0 <= given.port < 2**16:
        raise UsageError(f"--port: expected 0 to {2**16 - 1}, found {given.port}")
    from recbole_dtn.leaderboard.serve import BoardServer

    output = _output(given, file)
    find = _finder(given, file, output, begun=False)
    name = given.name or find().name
    with BoardServer(find, name, given.port, output=output) as server:
        say(make_console(), f"{name}: {server.address} (Ctrl-C ends)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


def _output(given: argparse.Namespace, file: Path | None) -> Path:
    """The folder of the tables; those of an archive stand beside it."""
    return Path(given.output or (file.parent if file and file.name.endswith(SUFFIX) else OUTPUT))


def _finder(given: argparse.Namespace, file: Path | None, output: Path, *, begun: bool = True) -> Callable[[], Remade]:
    """Finds the records of a leaderboard's cells, or all below ``--records``; a second call reads what is new.

    ``begun``: whether rows must have been matched or tuned by then; else nothing is found before.
    """
    from recbole_dtn.leaderboard.records import Recorded
    from recbole_dtn.leaderboard.remake import of_folder

    folder = Path(given.records) if given.records else None
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--records: no folder {folder}; expected one that holds run folders, such as runs")
    if file and file.name.endswith(SUFFIX):
        return _found_in(file, given)
    if file or given.models or given.datasets:
        return found_of(plan_of(given, file), folder, file, output, begun=begun)
    if folder is None:
        raise UsageError(
            f"leaderboard: expected BOARD.yaml, --records=FOLDER, both, or BOARD{SUFFIX}; --help shows how"
        )
    _refuse_cells(given)
    load_plugins(split_words(given.plugins or ""))
    known, design = Recorded(), Design(proposed=split_words(given.proposed or ""))
    return lambda: replace(of_folder(folder, known), design=design)


def _refuse_cells(given: argparse.Namespace) -> None:
    """Refuse options that say which cells a leaderboard has, where all records are taken."""
    for key in ("seeds", "split_seeds", "folds", "floors", "match", "reference", "match_tolerance", "trials"):
        if getattr(given, key) is not None:
            raise UsageError(f"--{key} needs the file of a leaderboard (.yaml), or --models")
    if given.settings:
        raise UsageError(f"{given.settings[0]} needs the file of a leaderboard (.yaml), or --models")


def _found_in(file: Path, given: argparse.Namespace) -> Callable[[], Remade]:
    """Finds the records of an archive."""
    from recbole_dtn.leaderboard.remake import of_archive

    for name in ("records", "models", "datasets", "proposed"):
        if getattr(given, name):
            raise UsageError(f"{file} has its rows and records; leave out --{name}")
    _refuse_cells(given)
    load_plugins(split_words(given.plugins or ""))
    read: list[tuple[int, Remade]] = []

    def find() -> Remade:
        written = file.stat().st_mtime_ns if file.is_file() else 0
        if not read or read[0][0] != written:
            read[:] = [(written, of_archive(file))]
        return read[0][1]

    return find


def found_of(
    plan: Plan, folder: Path | None, file: Path | None, output: Path, *, begun: bool = True
) -> Callable[[], Remade]:
    """Finds the records of a plan's cells below ``folder``, or (None) below ``output_dir``.

    What was chosen for the rows is in ``output``, or kept with the records.
    """
    from recbole_dtn.leaderboard.plan import find_plan
    from recbole_dtn.leaderboard.records import Recorded
    from recbole_dtn.leaderboard.remake import Remade, of_cells

    name, known = plan.name_of(file), Recorded()
    places = [output, *([folder] if folder else [])]
    made: list[tuple[BoardPlan | None, list[Cell]]] = []

    def find() -> Remade:
        if not begun and (plan.match or plan.tune) and find_plan(places, name) is None:
            return Remade([], {}, name)
        chosen = _chosen(plan, places, name)
        if not made or made[-1][0] != chosen:  # while a leaderboard runs, trials change what is chosen
            made[:] = [(chosen, plan.cells(chosen))]
        found = of_cells(made[-1][1], folder, name, known, chosen, archive_file(output, name))
        return replace(found, design=plan.design)

    return find


def _chosen(plan: Plan, folders: list[Path], name: str) -> BoardPlan | None:
    """What was chosen for the rows of a leaderboard that matches or tunes them.

    Raises:
        UsageError: where it has not been chosen yet, or was chosen otherwise.
    """
    if plan.match is None and plan.tune is None:
        return None
    from recbole_dtn.leaderboard.plan import find_plan, plan_file

    found = find_plan(folders, name)
    if found is None:
        places = " or ".join(str(plan_file(folder, name)) for folder in folders)
        raise UsageError(
            f"{name}: its rows are matched or tuned, and there is no {places}; `leaderboard run` writes it"
        )
    if (found.match, found.tune) != (plan.match, plan.tune):
        raise UsageError(
            f"{name}.plan.json: it was made with other options of match or tune; give the same, or run the leaderboard"
        )
    return found


def diff(words: list[str]) -> int:
    """Compare two leaderboards."""
    given = DIFF.parse(words[1:], most_words=2)
    if len(given.words) != 2:
        raise UsageError(f"leaderboard diff: expected {DIFF.place}; found {len(given.words)}")
    from recbole_dtn.leaderboard.against import COLUMNS, against, against_markdown
    from recbole_dtn.report.tables import show_table

    console = make_console()
    boards = []
    options = [*([f"--plugins={given.plugins}"] if given.plugins else []), *(["--trust"] if given.trust else [])]
    for word in given.words:
        file = Path(word) if word.endswith(FILES) else None
        if file is None and not Path(word).is_dir():
            raise UsageError(f"leaderboard diff: no folder {word}; expected {DIFF.place}")
        found = _finder(RENDER.parse([*options, *([] if file else [f"--records={word}"])]), file, Path(OUTPUT))()
        if not found.records:
            raise UsageError(f"leaderboard diff: no finished run of {word}; {_what_else(found.unreadable)}")
        for message in found.unreadable:
            say(console, f"left out: {message}")
        boards.append(found)
    a, b = boards
    compared = against(a.records, b.records, a.names, b.names)
    show_table(console, COLUMNS, [change.cells for change in compared.changes], numbers=True)
    say(console, "\n".join(["", *compared.notes]))
    if given.output:
        write_text(Path(given.output), against_markdown(compared))
        say(console, f"written to {given.output}")
    return 0

"""``leaderboard [run|render|speed|serve|diff|add|cell]``: models x data sets x splits x seeds, and their results."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from recbole_dtn.cli import leaderboard_results as results
from recbole_dtn.cli.arguments import split_words
from recbole_dtn.cli.leaderboard_options import ADD, CELL, COMMANDS, HELP, RUN
from recbole_dtn.cli.leaderboard_plan import Plan, board_file, plan_of
from recbole_dtn.config.layers import config_file
from recbole_dtn.errors import Preempted, UsageError
from recbole_dtn.leaderboard.archive import archive_file
from recbole_dtn.report.console import make_console, say
from recbole_dtn.report.files import check_place, write_text

__all__ = ["help_text", "run"]


def help_text(words: list[str]) -> str:
    """How to call it, or one of its commands.

    Raises:
        UsageError: for another command.
    """
    commands = [word for word in words[:1] if not word.startswith("-")]
    board_file(commands)
    command = commands[0] if commands and commands[0] in COMMANDS else "run"
    return COMMANDS[command].help_text() if commands else HELP


def run(words: list[str]) -> int:
    """Run the command."""
    others = {
        "render": results.render, "speed": results.speed, "serve": results.serve, "diff": results.diff,
        "add": _add, "cell": _cell,
    }  # fmt: skip
    return others.get(words[0] if words else "", _run)(words)


def _run(words: list[str]) -> int:
    """Run the leaderboard."""
    given = RUN.parse(words, most_words=len(words))
    file = board_file(given.words)
    if given.workers < 1:
        raise UsageError(f"--workers: expected 1 or more, found {given.workers}")
    instead = [name for name in ("dry_run", "collect", "print_jobs", "speed") if getattr(given, name)]
    if len(instead) > 1:
        raise UsageError(f"--{instead[0]} and --{instead[1]} do not go together: give one of them")
    check_place(Path(given.output), f"--output={given.output}")
    plan = plan_of(given, file)
    if given.dry_run:
        return _dry_run(plan, file, Path(given.output))
    if given.collect:
        results.write_found(results.found_of(plan, None, file, Path(given.output))(), Path(given.output))
        return 0
    if given.print_jobs:
        return _print_jobs(plan, file, Path(given.output))
    from recbole_dtn.leaderboard.executors import make_executor
    from recbole_dtn.leaderboard.run import run_board

    options = _mapping("executor_options", given.executor_options)
    executor = make_executor(given.executor or "local", given.workers, options, Path(given.output))
    run_board(
        plan.models,
        plan.datasets,
        plan.seeds,
        plan.overrides,
        Path(given.output),
        make_console(lasting=True),
        settings=plan.settings,
        split_seeds=plan.split_seeds,
        board=file.stem if file else None,
        floors=plan.floors,
        design=plan.design,
        workers=given.workers,
        executor=executor,
        match=plan.match,
        tune=plan.tune,
    )
    if given.speed:
        results.measure_rows(plan, plan.name_of(file), Path(given.output))
    return 0


def _dry_run(plan: Plan, file: Path | None, output: Path) -> int:
    """Print what the leaderboard would run, and what of it is recorded; of planted data sets the first planting is
    written."""
    from recbole_dtn.leaderboard.datasets import write_planted
    from recbole_dtn.leaderboard.outlook import show_outlook

    cells, console = plan.cells(), make_console()
    first = list({entry.shown: entry for entry in reversed(plan.datasets)}.values())
    write_planted(first, Path(cells[0].settings.data_path), lambda text: say(console, text))
    show_outlook(cells, plan.match, plan.tune, console)
    try:
        found = results.found_of(plan, None, file, output, begun=False)()
    except UsageError as error:  # rows were chosen with other options
        say(console, f"recorded: none that counts ({error})")
        return 0
    tunings = [row.tuning for row in found.plan.rows if row.tuning is not None] if found.plan is not None else []
    trials = f" and {sum(len(tuning.trials) for tuning in tunings):,} trials" if tunings else ""
    if found.records or trials:
        say(console, f"recorded: {len(found.records):,} cells{trials}; what is recorded on these data is not run again")
    return 0


def _mapping(name: str, text: str | None) -> dict[str, Any]:
    """The map that an option has in YAML; empty without one."""
    import yaml

    try:
        found = yaml.safe_load(text or "{}")
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"--{name}: expected a map such as '{{timeout_min: 60}}', found {text!r}")
    return found


def _print_jobs(plan: Plan, file: Path | None, output: Path) -> int:
    """Print a command per missing cell; of tuned rows those of the next trials first."""
    from recbole_dtn.leaderboard.datasets import write_planted
    from recbole_dtn.leaderboard.jobs import board_jobs
    from recbole_dtn.leaderboard.plan import find_plan, write_plan
    from recbole_dtn.leaderboard.records import Recorded

    cells, name, known = plan.cells(), plan.name_of(file), Recorded()
    known.read_archive(archive_file(output, name))
    for message in known.unreadable:
        print(f"left out: {message}", file=sys.stderr)
    # Standard output has the commands and nothing else.
    write_planted(plan.datasets, Path(cells[0].settings.data_path), lambda text: print(text, file=sys.stderr))
    commands = board_jobs(
        cells, plan.match, plan.tune, plan.cells, lambda found: write_plan(found, output, name), known,
        find_plan([output], name) if plan.match or plan.tune else None,
    )  # fmt: skip
    printed = False
    for command in commands:
        print(command)
        printed = True
    if not printed:
        print("every cell is recorded; --collect writes the tables", file=sys.stderr)
    return 0


def _cell(words: list[str]) -> int:
    """Run one cell."""
    given = CELL.parse(words[1:])
    for key in ("model", "dataset"):
        if not any(word.startswith(f"--{key}=") for word in given.settings):
            raise UsageError(
                f"leaderboard cell: --{key} is needed; `leaderboard run --print-jobs` writes whole commands"
            )
    from filelock import Timeout

    from recbole_dtn.leaderboard.cell_run import run_locked
    from recbole_dtn.leaderboard.cells import cell_of

    cell = cell_of(given.settings)
    try:
        record = run_locked(cell)
    except Timeout:
        say(make_console(), f"{cell.title}: another process is running it")
        return 0
    say(make_console(), f"{cell.title}: {record.status}, {cell.folder / record.run_id}")
    if record.status == "preempted":
        raise Preempted("the same command goes on")
    if record.status == "interrupted":
        raise KeyboardInterrupt
    return 0


def _add(words: list[str]) -> int:
    """Add a row to a leaderboard's file."""
    given = ADD.parse(words[1:], most_words=1)
    file = board_file(given.words)
    if file is None or not file.is_file():
        shipped = config_file(str(file)) if file else None
        copy = f"; it is shipped: copy {shipped} first" if shipped and shipped.is_file() else ""
        raise UsageError(f"leaderboard add: expected a leaderboard's file of your own (.yaml), no file {file}{copy}")
    from recbole_dtn.leaderboard.board import appended, entry_of, read_board

    entry = entry_of(given.model, given.name, given.settings)
    plugins, known = split_words(given.plugins or ""), read_board(file).plugins
    text = appended(file.read_bytes().decode(), "models", entry, inherited=True)  # with the line ends that it has
    for path in plugins:
        if path not in known:
            text = appended(text, "plugins", path, inherited=bool(known))
    # Beside it, where `extends` finds other files.
    with NamedTemporaryFile(dir=file.parent, prefix=".", suffix=file.suffix) as trial:
        trial.write(text.encode())
        trial.flush()
        options = [f"--plugins={','.join(plugins)}"] if plugins else []
        try:
            plan = plan_of(RUN.parse([*options, *(["--trust"] if given.trust else [])]), Path(trial.name))
            cells = plan.cells()
        except UsageError as error:
            raise UsageError(str(error).replace(trial.name, str(file))) from None
    write_text(file, text)
    new = sum(cell.name == plan.models[-1].name for cell in cells)
    trust = " --trust" if plugins or known else ""
    say(make_console(), f"{file}: added {entry}, {new} cells; `leaderboard run {file}{trust}` runs them")
    return 0

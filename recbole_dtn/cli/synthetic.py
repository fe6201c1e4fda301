"""``run_recbole_dtn.py preprocess synthetic``: raw files of a known layout with a planted model."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from recbole_dtn.cli.arguments import Command, boolean, own_options, path_option, real, whole
from recbole_dtn.cli.help_text import PROGRAM
from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.report.console import make_console, say

__all__ = ["help_text", "run"]

COMMAND = Command(
    "preprocess synthetic",
    usage=["--like=LAYOUT --rows=N --output=DIR [--seed=0] [--overwrite] [options]"],
    about="""
Writes raw files in the exact layout of a known set, with invented values and a planted model: each task depends on
fields that are known, and the best AUC that any model can reach is known. Everything planted is in DIR/planted.json;
docs/datasets/synthetic.md explains it. The same arguments give the same bytes on one machine and numpy version. Peak
memory is below 400 MiB.
""",
    after=f"""
The planted model, in every layout:
  --informative=6        fields that each task depends on
  --overlap=0.333        share of the first task's fields that the other tasks depend on too; 0 to 1
  --signal=1.0           how much the labels depend on them: standard deviation of the log-odds; 0: not at all
  --faults=0             faulty rows of every kind in every file, at lines that planted.json lists (tests of parsers)

aliccp:
  --test_share=0.5042  --click_rate=0.0405  --per_user=58 (impressions per common row)
  --buy_rate: P(buy); by default .0002 as in the real set, and more where that makes under 100 purchases
aliexpress:
  --countries=NL,ES,FR,US (or some of these and RU)  --test_share=0.31  --click_rate=0.022
  --buy_rate=0.0009  --zipped=true (zips as published; false: the plain CSV files)
kuairand:
  --version=1k (or pure, 27k)  --click_rate=0.4  --long_rate=0.65  --like_rate=0.04 (both of the clicks)
census-income:
  --income_rate=0.062  --never_rate=0.4325
planted (atomic files, which --dataset reads as they are; two tasks that depend on pairs of fields):
  --differ_in=tables (both tasks have the same pairs of fields, and --overlap is the correlation of their tables, -1 to
  1) or pairs (--overlap is the share of pairs, with their tables, that both tasks have; the others are their own)
  --first_rate=0.3  --second_rate=0.05 (shares of positives among all rows)
  --chain=false (true: second needs first, as a purchase needs a click)  --fields=12  --ids=20 (tokens of a field)

Example:
  {PROGRAM} preprocess synthetic --like=aliccp --rows=1000000 --output=dataset/aliccp-synthetic/raw
  {PROGRAM} preprocess aliccp --raw=dataset/aliccp-synthetic/raw --name=aliccp-synthetic
  {PROGRAM} preprocess synthetic --like=planted --rows=160000 --overlap=0 --output=dataset/other-tables
  {PROGRAM} --model=DTN --dataset=other-tables
""",
    settings=True,
    place="expected options only",
)
COMMAND.option("like", "LAYOUT", "aliccp, aliexpress, kuairand, census-income or planted", required=True)
COMMAND.option(
    "rows",
    "N",
    "rows over train and test together: impressions, shown products, log rows, persons",
    kind=whole,
    required=True,
)
COMMAND.option("seed", "N", "seed of everything", default=0, kind=whole)
COMMAND.option("output", "DIR", "folder that is made; it must be empty or new", required=True)
COMMAND.flag("overwrite", "replace DIR where it holds a synthetic set (a planted.json), and nothing else")
COMMAND.flag("quiet", "show no progress")


def help_text(words: list[str] | None = None) -> str:
    """How to call it."""
    return COMMAND.help_text()


def run(words: list[str]) -> int:
    """Write a synthetic raw set."""
    # numpy and polars are paid by who runs it, not by who asks for help.
    from recbole_dtn.synthetic.generate import generate, layout_class, layout_options

    given = COMMAND.parse(words, complete=False)
    defaults = layout_options(given.like) if given.like else {}
    texts, unknown = own_options(given.settings, defaults)
    _refuse_unknown(unknown, defaults, given.like)
    COMMAND.need_all(given)
    like, output = given.like, given.output
    options = {name: _typed(name, text, defaults[name]) for name, text in texts.items()}
    console = make_console()
    with _meter(console, quiet=given.quiet) as meter:
        generate(
            like,
            given.rows,
            given.seed,
            Path(output),
            log=lambda text: say(console, text),
            meter=meter,
            overwrite=given.overwrite,
            **options,
        )
    say(console, f"{Path(output) / 'planted.json'} says what was planted, and the best AUC of each task")
    if layout_class(like).atomic:
        say(console, f"next: {PROGRAM} --model=DTN --dataset={Path(output).name}{path_option(Path(output).parent)}")
        return 0
    name = Path(output).parent.name if Path(output).name == "raw" and Path(output).parent.name else f"{like}-synthetic"
    say(console, f"next: {PROGRAM} preprocess {like} --raw={output} --name={name}{_same(defaults, options)}")
    return 0


def _refuse_unknown(names: list[str], defaults: dict[str, Any], like: str | None) -> None:
    """Report an option that is not known before one that is missing: it may be that one, misspelt."""
    for name in names:
        hint = nearest(name, (*defaults, *COMMAND.kinds))
        if like is not None:
            raise UsageError(f"--{name}: the layout {like} has no such option; {hint}")
        if hint.startswith("did you mean"):  # else it may be an option of the layout, which is not named
            raise UsageError(f"--{name}: preprocess synthetic has no such option; {hint}")


def _same(defaults: dict[str, Any], options: dict[str, Any]) -> str:
    """The options that the preprocessor needs too, if they are not its defaults."""
    told = [name for name in ("countries", "version") if name in options and options[name] != defaults[name]]
    return "".join(f" --{name}={options[name]}" for name in told)


def _typed(name: str, text: str, default: Any) -> Any:
    """The value of an option, of its default's type; a number where the default is none."""
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        return boolean(text, name)
    try:
        return whole(text) if isinstance(default, int) else real(text)
    except ArgumentTypeError as error:
        raise UsageError(f"--{name}: {error}") from None


@contextmanager
def _meter(console: Console, *, quiet: bool) -> Iterator[Meter]:
    """A bar on a terminal, nothing elsewhere."""
    if quiet or not console.is_terminal:
        yield silent
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("")

        def show(stage: str, done: int, total: int) -> None:
            progress.update(bar, description=stage, completed=done, total=total)

        yield show

"""``python run_recbole_dtn.py list <kind>``: what is registered."""

from __future__ import annotations

from pathlib import Path

from recbole_dtn.cli.arguments import Command, split_words
from recbole_dtn.cli.docstrings import inline
from recbole_dtn.cli.help_text import PROGRAM
from recbole_dtn.config.datasets import dataset_values, dataset_yaml, has_atomic_files, known_datasets, shadows
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.registry import PREPROCESSORS, REGISTRIES, Registry, load_plugins
from recbole_dtn.report.console import make_console, say
from recbole_dtn.report.tables import show_table

__all__ = ["help_text", "run"]

KINDS: dict[str, Registry] = {f"{registry.kind}s".replace("sss", "sses"): registry for registry in REGISTRIES}
DATASETS = "datasets"

COMMAND = Command(
    "list",
    usage=["KIND [--details] [--plugins=a.py,b.py]", "datasets [--data_path=dataset]"],
    about=f"""
What is registered: name, paper, summary, and where each comes from. KIND is one of {", ".join(KINDS)}.

datasets shows the shipped data sets and the folders under data_path: state, tasks, folder.
""",
)
COMMAND.flag("details", "of each method its equation, options, parameters and FLOPs at a stated size")
COMMAND.option("plugins", "a.py,b.py", "show what these files register, too")
COMMAND.option("data_path", "FOLDER", "datasets: folder where prepared ones are looked for", default="dataset")

ABOUT_DATASETS = "The shipped data sets and the folders under data_path: state, tasks, folder."
ABOUT_KIND = """
The registered {kind}, those of plug-in files included: name, paper, summary, and where each comes from; with --details
also equation, options and size.
"""


def help_text(words: list[str]) -> str:
    """How to call it, in general or for one kind.

    Raises:
        UsageError: for an unknown kind.
    """
    if not words or words[0].startswith("-"):
        return COMMAND.help_text()
    kind = _known_kind(words[0])
    if kind == DATASETS:
        return Command("list datasets", usage=["[--data_path=dataset]"], about=ABOUT_DATASETS).help_text()
    return Command(
        f"list {kind}", usage=["[--details] [--plugins=a.py,b.py]"], about=ABOUT_KIND.format(kind=kind)
    ).help_text()


def _known_kind(kind: str) -> str:
    kinds = (*KINDS, DATASETS)
    if kind not in kinds:
        raise UsageError(f"list: unknown kind {kind!r}; {nearest(kind, kinds)}")
    return kind


def run(words: list[str]) -> int:
    """Print one table."""
    given = COMMAND.parse(words, most_words=len(words))
    if len(given.words) != 1:
        raise UsageError(f"list: name one of {', '.join(sorted((*KINDS, DATASETS)))}")
    kind = _known_kind(given.words[0])
    load_plugins(split_words(given.plugins or ""))
    console = make_console()
    if kind == DATASETS:
        if given.details:
            raise UsageError("list datasets: --details is for methods; `data info --dataset=NAME` describes a data set")
        show_table(console, ("data set", "state", "tasks", "folder"), _datasets(Path(given.data_path)))
        say(console, f"\na data set of your own table: `{PROGRAM} preprocess table --help`")
        return 0
    if given.details:
        from recbole_dtn.cli.details import details, shown

        registry = KINDS[kind]
        methods = ["\n".join(shown(registry.kind, details(registry, name))) for name in registry.names()]
        print("\n\n".join(methods))
        return 0
    entries = [KINDS[kind].entry(name) for name in KINDS[kind].names()]
    rows = [(entry.name, entry.paper, inline(entry.summary), entry.origin) for entry in entries]
    show_table(console, ("name", "paper", "summary", "origin"), rows)
    return 0


def _datasets(data_path: Path) -> list[tuple[str, str, str, str]]:
    rows = []
    for name in known_datasets(data_path):
        file = dataset_yaml(name, data_path)
        values = dataset_values(name, data_path)
        folder = data_path / str(values.get("folder") or name)
        if has_atomic_files(folder):
            state = "prepared" if file is not None else "atomic files, no YAML"
        else:
            state = _unprepared(values.get("preprocessor"), data_path)
        if shadows(name, data_path):
            state += ", own YAML in place of the shipped one" if file else ", in place of the shipped data set"
        if values.get("selected_on_test"):
            state += ", selected on the test set"
        tasks = ", ".join(str(task.get("name")) for task in values.get("tasks") or [])
        rows.append((name, state, tasks, str(folder)))
    return rows


def _unprepared(preprocessor: str | None, data_path: Path) -> str:
    """The state of a data set without atomic files, judged without opening a file."""
    if preprocessor is None:
        return "files missing"
    if PREPROCESSORS.entry(preprocessor).options_class is None:
        return "made at first use"
    raw = data_path / preprocessor / "raw"
    if raw.is_dir() and any(raw.iterdir()):
        return "raw files found, made at first use"
    return "raw files missing"

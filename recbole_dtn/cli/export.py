"""``python run_recbole_dtn.py export --run=FOLDER``: a finished run as ONNX, or for torch alone."""

from __future__ import annotations

from pathlib import Path

from recbole_dtn.cli.arguments import Command, split_words
from recbole_dtn.plugins import plugin_warnings
from recbole_dtn.report.files import check_place
from recbole_dtn.report.text import shown

__all__ = ["help_text", "run"]

COMMAND = Command(
    "export",
    usage=["--run=FOLDER --format=onnx|torch-export --output=FOLDER [options]"],
    about="""
The model of a finished run, with its vocabularies, bins and statistics: raw values in, scores out. `onnx` writes
model.onnx, whose inputs are texts and numbers (pip install 'recbole-dtn[onnx]'); `torch-export` writes model.pt2, a
program of torch.export, with encoder.json and encode.py, which turns raw values into its inputs with numpy alone.

Scores are compared with those of the run on rows of its data, and on rows of unknown, far and missing values. A
difference above 1e-5 is an error, and nothing is written.
""",
    place="the folder goes in --run=FOLDER",
)
COMMAND.option("run", "FOLDER", "a run's folder, as printed at its end", required=True)
COMMAND.option("format", "FORMAT", "onnx or torch-export", required=True)
COMMAND.option("output", "FOLDER", "gets the files", required=True)
COMMAND.option("rows", "FILE", "rows to compare on; default: the first of the run's data")
COMMAND.option("data_path", "FOLDER", "where the data is now, if it has moved")
COMMAND.option("plugins", "a.py,b.py", "plug-in files that the run used")
COMMAND.flag("trust", "run the plug-in files that the run's folder names")
COMMAND.flag("overwrite", "replace the folder")


def help_text(words: list[str]) -> str:
    """How to call it."""
    return COMMAND.help_text()


def run(words: list[str]) -> int:
    """Load the run, export it, say how far its scores are from the run's."""
    given = COMMAND.parse(words)
    check_place(Path(given.output), f"--output={given.output}")
    from recbole_dtn.record.record import read_record

    read_record(Path(given.run))  # a wrong folder is an error before torch is imported
    from recbole_dtn.serving.export import export_run, sample_rows
    from recbole_dtn.serving.load import load
    from recbole_dtn.training.signals import Signals

    moved = {} if given.data_path is None else {"data_path": given.data_path}
    with plugin_warnings():
        loaded = load(given.run, plugins=split_words(given.plugins or ""), trust=given.trust, **moved)
    rows = sample_rows(loaded, given.rows)
    with Signals():  # SIGTERM leaves no half of an export
        found = export_run(loaded, given.format, Path(given.output), rows, overwrite=given.overwrite)
    print(shown(f"wrote {', '.join(found.files)} into {given.output}"))
    print(f"largest difference from the run's scores: {found.difference:.1e}, over {found.rows:,} rows")
    return 0

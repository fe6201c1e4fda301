"""The options of ``leaderboard`` and its commands."""

from __future__ import annotations

from recbole_dtn.cli.arguments import Command, real, whole
from recbole_dtn.cli.help_text import PROGRAM

__all__ = ["ADD", "CELL", "COMMANDS", "DIFF", "FLOORS", "HELP", "OUTPUT", "RENDER", "RUN", "SERVE", "SPEED"]

FLOORS = "Logistic,Boosting"
OUTPUT = "leaderboard"
HELP = f"""\
{PROGRAM} leaderboard [run] --models=A,B --datasets=X --seeds=3
{PROGRAM} leaderboard run BOARD.yaml --workers=4
{PROGRAM} leaderboard render BOARD.yaml

commands:
  run     train and test every model on every data set with every split and
          seed, and write the tables and the page of their results; the command
          when none is named
  render  write the tables and the page again, from the records of the runs
  speed   measure the speed and memory of every row, one at a time
  serve   show the page in a browser on this machine, also while a board runs
  diff    compare two leaderboards row by row, paired by seed or split
  add     add a row to a leaderboard's file
  cell    run one cell, as `run --print-jobs` writes it

`{PROGRAM} leaderboard run --help` shows its options.
"""

RUN = Command(
    "leaderboard run",
    usage=["--models=DTN,PLE --datasets=ml-100k [settings]", "BOARD.yaml [options] [settings]"],
    after="""
A cell is one run (row, data set, split, seed). Every other --key=value is a setting of all cells (--epochs=1). A cell
that is recorded under output_dir with the same settings, data, split, seed and version is not run again, so a
leaderboard that was stopped goes on with the same command. Several may run over one output_dir: each cell is run once.

BOARD.yaml has the options as keys (models, datasets, seeds, split_seeds, folds, floors, proposed, plugins, match,
reference, match_tolerance, tune), settings of all rows under settings, and planned comparisons under contrasts;
extends names another file whose keys it has. An entry of models may be a map, a row of its own:

  datasets: [ml-100k]
  models:
    - MMoE
    - {name: one module, model: DTN, interactions: [gdcn]}
  settings: {epochs: 3}
  match: dense
  reference: one module
  tune: {trials: 8, epochs: 3}

With match one factor scales the widths of each model until its dense parameters (dense+codebook: those of codebooks
too; total: all; flops: FLOPs per row) are within 5 % of those of the reference; a row that cannot come so close is
refused before anything runs.
With tune each row has the same number of trials over properties/tuning/space.yaml, the defaults first; they select on
validation and read no test rows, and have seeds of their own. tune.also lists settings that every row tries besides,
such as the defaults of one of them.

Options and settings of the command line win over the file's.
""",
    settings=True,
)
RENDER = Command(
    "leaderboard render",
    usage=[
        "BOARD.yaml [--records=FOLDER] [--output=FOLDER] [--format=html]",
        "--records=FOLDER [--name=NAME] [--output=FOLDER] [--format=html]",
        "BOARD.records.jsonl.gz",
    ],
    about="""
Writes the tables and the page of a leaderboard again, from the records of its runs: no data is read and nothing is
trained. The same records give the same bytes. Statistics over the test sample that are not stored beside the tables
are computed where the runs have their test scores.
""",
    after="""
With a leaderboard's file (or --models and --datasets) the rows are its rows, in its order; its options are those of
`leaderboard run`. Records of earlier versions of this package count too. Without one, every finished run below
--records is in the tables; rows of one model are named after the settings in which they differ.
BOARD.records.jsonl.gz, which stands beside the tables, has the rows and the records of a whole leaderboard: the tables
are made again beside it without the runs, the leaderboard's file or the data.
""",
    settings=True,
)


def _plan_options(command: Command) -> None:
    """The options that say which cells a leaderboard has."""
    command.option(
        "models",
        "A,B",
        "rows of the file by their names, or models at their defaults, separated by commas; needed without a file",
    )
    command.option("datasets", "X,Y", "data sets, separated by commas; needed without a file")
    command.option(
        "seeds",
        "N",
        "how many seeds from 2020 on, or the seeds themselves: 2020,2021; each is run on every split; default: 3, or "
        "one per split where there are several",
    )
    command.option(
        "split_seeds",
        "N",
        "how many random splits (split_seed from 2020 on), or their seeds: 1,5; all models share them",
    )
    command.option("folds", "N", "cut the rows into N folds and test each of them once (for every split_seed)")
    command.option(
        "floors",
        "A,B",
        f"simple models on the same rows, each run once per split; default: {FLOORS}; none: leave them out",
    )
    command.option(
        "proposed",
        "A,B",
        "rows that are no baselines: differences are to the best of the others on validation; default: every row is a "
        "baseline of the others",
    )
    command.option(
        "match",
        "SIZE",
        "widths of the rows are scaled to the size of the reference row: dense, dense+codebook or total parameters, "
        "or flops; none: each has its own; default: that of the file",
    )
    command.option("reference", "ROW", "row whose size the others take; it keeps its own widths")
    command.option("match_tolerance", "SHARE", "largest deviation from that size; default: 0.05", kind=real)
    command.option(
        "trials",
        "N",
        "trials of each row, whose best gives its settings; 0: none; default: those of the file",
        kind=whole,
    )


_plan_options(RUN)
RUN.flag("dry_run", "print rows, sizes, cells, trials, the projected time and what is recorded, and train nothing")
RUN.option(
    "workers",
    "N",
    "cells that run at the same time, each in a process of one thread; with 1, torch has its own number of threads",
    default=1,
    kind=whole,
)
RUN.option(
    "executor",
    "local",
    "where cells run: local, processes of this machine; ray, the cluster that RAY_ADDRESS names, or one on this "
    "machine; slurm, a job each (pip install 'recbole_dtn[slurm]'); --workers is then the jobs at a time",
)
RUN.option(
    "executor_options",
    "MAP",
    "of each job: with ray those of ray.remote ({num_gpus: 1}), with slurm those of submitit ({timeout_min: 60, "
    "mem_gb: 4, slurm_partition: cpu})",
)
RUN.flag("print_jobs", "print one shell command per missing cell, for any scheduler, and run nothing")
RUN.flag("collect", "write the tables and the page of the cells that are recorded, and run nothing")
RUN.flag("speed", "measure speed and memory at the end, as `leaderboard speed` does")
RUN.option("output", "FOLDER", "folder of the tables and the page", default=OUTPUT)
RUN.option("plugins", "a.py,b.py", "Python files that register models, interactions, ...")
RUN.flag("trust", "run the plug-in files that the leaderboard's file and config_files name")

RENDER.option("records", "FOLDER", "folder of the runs; default: output_dir of the cells")
RENDER.option("output", "FOLDER", f"folder of the tables and the page; default: {OUTPUT}, or that of the archive")
RENDER.option("format", "md,csv,latex,html,svg,records", "forms to write; default: all")
RENDER.option("name", "NAME", "name of the files; default: that of the leaderboard's file, or of the folder")
_plan_options(RENDER)
RENDER.option("plugins", "a.py,b.py", "Python files that register models, interactions, ...")
RENDER.flag("trust", "run the plug-in files that the leaderboard's file and config_files name")

SPEED = Command(
    "leaderboard speed",
    usage=["BOARD.yaml [--seconds=5] [--output=FOLDER]"],
    about="""
Measures every row of a leaderboard, one at a time in a process of its own: training samples per second, the latency of
one row (p50, p99), rows per second with 8,192 at a time, peak memory, and FLOPs of a forward pass. Nothing else should
run on the machine meanwhile. The results are in BOARD.speed.json beside the tables, with the machine; the tables are
written again with them. Rows that were measured before are not measured again.
""",
    after="""
The rows are those of the leaderboard's file, or of --models and --datasets; --threads=1 measures with one thread.
""",
    settings=True,
)
SPEED.option("seconds", "N", "seconds of training, of single rows and of large batches each", default=5, kind=whole)
SPEED.option("output", "FOLDER", "folder of the tables and the page", default=OUTPUT)
_plan_options(SPEED)
SPEED.option("plugins", "a.py,b.py", "Python files that register models, interactions, ...")
SPEED.flag("trust", "run the plug-in files that the leaderboard's file and config_files name")

SERVE = Command(
    "leaderboard serve",
    usage=[
        "BOARD.yaml [--records=FOLDER] [--port=0]",
        "--records=FOLDER [--name=NAME] [--port=0]",
        "BOARD.records.jsonl.gz [--port=0]",
    ],
    about="""
Shows the page of a leaderboard in a browser on this machine, and on no other, until Ctrl-C. It reads the records as
`leaderboard render` does; while `leaderboard run` is at work the page tells when more runs have ended.
""",
    settings=True,
)
SERVE.option("records", "FOLDER", "folder of the runs; default: output_dir of the cells")
SERVE.option(
    "output",
    "FOLDER",
    f"folder of the tables, which has statistics and speed too; default: {OUTPUT}, or that of the archive",
)
SERVE.option("name", "NAME", "title of the page; default: that of the leaderboard's file, or of the folder")
SERVE.option("port", "N", "port; 0: a free one", default=0, kind=whole)
_plan_options(SERVE)
SERVE.option("plugins", "a.py,b.py", "Python files that register models, interactions, ...")
SERVE.flag("trust", "run the plug-in files that the leaderboard's file and config_files name")

DIFF = Command(
    "leaderboard diff",
    usage=["A B [--output=FILE.md]"],
    about="""
Compares leaderboard B with leaderboard A: for each row that both have (by data set and name), the test metric of each
task, the difference paired by seed or split with its interval, and the settings that differ.
""",
    after="""
A and B are each a folder of runs, all of which are taken, the file of a leaderboard, whose runs are below output_dir,
or its records (BOARD.records.jsonl.gz).
""",
    place="two leaderboards, each a folder of runs, a leaderboard's file or its records",
)
DIFF.option("output", "FILE.md", "file for the comparison as Markdown too")
DIFF.option("plugins", "a.py,b.py", "Python files that register models, interactions, ...")
DIFF.flag("trust", "run the plug-in files that the files of the leaderboards and config_files name")

ADD = Command(
    "leaderboard add",
    usage=["BOARD.yaml --model=NAME [--name=ROW] [--plugins=a.py] [settings]"],
    about="""
Adds a row to the file of a leaderboard, after those that it has; the rest of the file stays as it is. All cells are
checked first. `leaderboard run BOARD.yaml` then runs the new row's cells.
""",
    settings=True,
    place="one leaderboard's file",
)
ADD.option("model", "NAME", "model of the row", required=True)
ADD.option("name", "ROW", "name of the row; default: the model's")
ADD.option("plugins", "a.py,b.py", "Python files that register the model, added to the leaderboard's")
ADD.flag("trust", "run the plug-in files that the leaderboard's file names")

CELL = Command(
    "leaderboard cell",
    usage=["--model=DTN --dataset=ml-100k --seed=2020 [settings]"],
    about="""
Runs one cell of a leaderboard, as `leaderboard run --print-jobs` writes it; a run that was stopped goes on. Nothing is
run where the cell is recorded below output_dir, or another process is running it.
""",
    settings=True,
    place="settings only",
)

COMMANDS = {
    "run": RUN, "render": RENDER, "speed": SPEED, "serve": SERVE, "diff": DIFF, "add": ADD, "cell": CELL,
}  # fmt: skip

"""A finished run as a file that needs neither this package nor Python to score raw values (ONNX), or torch alone."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from recbole_dtn.data.building import WRITING, locked_folder
from recbole_dtn.data.escape import unescape
from recbole_dtn.data.features import Features, MultiValued
from recbole_dtn.data.floats import FloatStatistics
from recbole_dtn.data.sources import data_folder
from recbole_dtn.data.vocabulary import TokenVocabulary
from recbole_dtn.errors import DataError, UsageError, nearest
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.record.held import held
from recbole_dtn.report.files import check_place, writing
from recbole_dtn.schema import DataSchema, TaskSpec
from recbole_dtn.serving import standalone
from recbole_dtn.serving.load import LoadedRun
from recbole_dtn.serving.predict import needed_columns, plain_column
from recbole_dtn.serving.tables import Reading, numbers_of, open_input

__all__ = ["FORMATS", "Exported", "ExportedModel", "export_run", "sample_rows"]

FORMATS = ("onnx", "torch-export")
CLOSE = 1e-5
"""Largest difference of an exported score from that of the run."""
SAMPLED = 256
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime")}
DESCRIPTION = "encoder.json"
WRITTEN = {DESCRIPTION, "encode.py", "model.onnx", "model.pt2"}
"""Files of an export."""
Raw = dict[str, list[Any]]
"""Raw values by column; a list is a list."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """What :func:`export_run` wrote: the files, the rows compared, and the largest difference of a score."""

    folder: Path
    files: tuple[str, ...]
    rows: int
    difference: float


class ExportedModel(nn.Module):
    """A model as a function of tensors: ids (B, F), dense (B, N), values, offsets (and weights) of each list, domain.

    The domain (B,), the last one, is there for a model that reads it. Returns a (B,) float32 tensor for each task: the
    probability of a binary one, the value of a regression.
    """

    def __init__(self, model: MultiTaskRecommender, schema: DataSchema) -> None:
        super().__init__()
        self.model = model
        self.tasks: tuple[TaskSpec, ...] = schema.tasks
        self.lists = [(place, schema.fields[place].weights is not None) for place in schema.multi_fields]

    def forward(self, ids: Tensor, dense: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """Score a batch."""
        waiting = iter(rest)
        multi = {
            place: MultiValued(next(waiting), next(waiting), next(waiting) if weighted else None)
            for place, weighted in self.lists
        }
        output = self.model(Features(ids=ids, multi=multi, dense=dense, domain=next(waiting, None)))
        logits = self.model.served(output).logits.float()
        return tuple(
            torch.sigmoid(column) if task.kind == "binary" else column
            for task, column in zip(self.tasks, logits.unbind(1), strict=True)
        )


def describe(run: LoadedRun) -> dict[str, Any]:
    """Fields, vocabularies (raw tokens), statistics, tasks and domains, as :class:`standalone.Encoder` reads them."""
    fields = []
    for spec in run.model.schema.fields:
        known = run.vocabularies.fields[spec.name]
        own: dict[str, Any] = {"name": spec.name, "kind": spec.kind, "offset": spec.offset, "weights": spec.weights}
        if isinstance(known, TokenVocabulary):
            tokens = known.series.to_list()
            own["tokens"] = tokens if known.literal else [unescape(token) for token in tokens]
        else:
            assert isinstance(known, FloatStatistics)
            # The schema's edges, and the statistics that raw values are standardised by.
            own |= {"edges": list(spec.bins)}
            own |= {key: getattr(known, key) for key in ("mean", "std", "clip", "log1p")}
        fields.append(own)
    found = {"format": 1, "fields": fields, "tasks": list(run.model.schema.task_names)}
    if run.model.reads_domain:
        tokens = [unescape(token) for token in run.vocabularies.domains]
        found["domain"] = {"name": run.vocabularies.domain_field, "tokens": tokens}
    return found


def export_run(run: LoadedRun, form: str, folder: Path, rows: Raw, *, overwrite: bool = False) -> Exported:
    """Write a run's model into a folder, and compare its scores with the run's.

    Args:
        run: the run. form: ``onnx`` or ``torch-export``. folder: gets the files. rows: raw values to compare on, to
            which rows of unknown and of missing values are added. overwrite: replace what is there.

    Raises:
        UsageError: for an unknown form, a missing package, a model that cannot be exported, and a folder that is there
            without ``overwrite``. DataError: where an exported score differs by more than 1e-5.
    """
    if form not in FORMATS:
        raise UsageError(f"--format={form}: {nearest(form, FORMATS)}")
    missing = [name for name in NEEDED.get(form, ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"--format={form} needs {', '.join(missing)}: pip install 'recbole-dtn[onnx]', or take "
            "--format=torch-export"
        )
    name = type(run.model).__name__
    if run.model.fits_directly:
        raise UsageError(f"export: {name} cannot be exported: it is no network of tensors; score files by `predict`")
    if run.settings.precision not in ("32", "32-true"):
        raise UsageError(f"export: a run of precision {run.settings.precision} cannot be exported; train with 32")
    folder = Path(os.path.realpath(folder))
    aside = folder.with_name(f".{folder.name}.replaced")
    if aside.is_dir() and not folder.exists():
        os.replace(aside, folder)  # a kill came between the two renames of an earlier call
    _refuse_output(folder, overwrite)
    check_place(folder.parent, f"--output={folder}")
    checked = _with_odd_rows(run, rows)
    expected = run.predict(_frame(run, checked)).to_numpy()
    description = describe(run)
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked_folder(folder.parent, WRITING) as place:
            work = place / "export"
            work.mkdir()
            text = json.dumps(description, ensure_ascii=False)
            (work / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
            program = _program(run, name, work / DESCRIPTION, checked)
            if form == "onnx":
                from recbole_dtn.serving.onnx_graph import session_of, write_onnx

                write_onnx(program, description, work / "model.onnx")
                score = session_of(work / "model.onnx", description)
            else:
                score = _write_torch(program, work)
            difference = _compare(score, checked, expected, run.model.schema.task_names)
            _take_place(work, folder, aside)
    files = tuple(sorted(path.name for path in folder.iterdir()))
    return Exported(folder, files, len(expected), difference)


def _refuse_output(folder: Path, overwrite: bool) -> None:
    """Refuse what ``overwrite`` is not meant for: it replaces an export, or an empty folder.

    Raises:
        UsageError: naming what is there.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise UsageError(f"--output={folder} is a file; expected the name of a folder")
    if not overwrite:
        raise UsageError(f"--output={folder} exists: choose another folder, or give --overwrite")
    strange = sorted({path.name for path in folder.iterdir()} - WRITTEN)
    if strange:
        raise UsageError(
            f"--output={folder}: --overwrite replaces an export, and {', '.join(strange[:3])} is not of one; choose "
            "another folder"
        )


def _take_place(work: Path, folder: Path, aside: Path) -> None:
    """Put ``work`` in the place of ``folder``, whose old content is kept as ``aside`` until then."""
    shutil.rmtree(aside, ignore_errors=True)
    with held():
        if folder.exists():
            os.replace(folder, aside)
        try:
            os.replace(work, folder)
        except OSError:
            if aside.exists():
                os.replace(aside, folder)
            raise
    shutil.rmtree(aside, ignore_errors=True)


def _program(run: LoadedRun, name: str, description: Path, rows: Raw) -> torch.export.ExportedProgram:
    """The model with its batch and the numbers of values left open.

    Raises:
        UsageError: for a model that ``torch.export`` cannot trace, by its name.
    """
    inputs = tuple(torch.from_numpy(array) for array in standalone.Encoder(description)(rows))
    # Without gradients, outputs need no detach().
    module = ExportedModel(run.model, run.model.schema).eval().requires_grad_(False)
    sizes = torch.export.Dim.DYNAMIC
    # One entry for each tensor of ``*rest``, together.
    shapes = ({0: sizes}, {0: sizes}, *((tuple({0: sizes} for _ in inputs[2:]),) if inputs[2:] else ()))
    try:
        with torch.no_grad():
            return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch raises many kinds
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"export: {name} cannot be exported by torch.export ({type(error).__name__}: {first[:300]}); score files "
            "by `predict`"
        ) from error


def _write_torch(program: torch.export.ExportedProgram, folder: Path) -> Callable[[Raw], np.ndarray[Any, Any]]:
    # Given a path, torch ends the process where the disk is full.
    content = io.BytesIO()
    torch.export.save(program, content)
    (folder / "model.pt2").write_bytes(content.getbuffer())
    shutil.copyfile(standalone.__file__, folder / "encode.py")
    encoder = standalone.Encoder(folder / DESCRIPTION)
    loaded = torch.export.load(folder / "model.pt2").module()

    def score(rows: Raw) -> np.ndarray[Any, Any]:
        with torch.no_grad():
            found = loaded(*(torch.from_numpy(array) for array in encoder(rows)))
        return np.stack([column.numpy() for column in found], 1)

    return score


def _compare(
    score: Callable[[Raw], np.ndarray[Any, Any]],
    rows: Raw,
    expected: np.ndarray[Any, Any],
    tasks: Sequence[str],
) -> float:
    """The largest difference of the scores, in one batch and in small ones.

    Raises:
        DataError: where it is too large, with the task and the row.
    """
    total, worst = len(expected), 0.0
    # The last two rows alone, and a batch of three: sizes other than the one that was traced.
    for start, stop in ((0, total), (0, 3), (total - 2, total)):
        found = score({name: values[start:stop] for name, values in rows.items()})
        wanted = expected[start:stop]
        # Values of regressions are compared in units of their own size.
        apart = np.abs(found - wanted) / np.maximum(1, np.abs(wanted))
        apart = np.where(np.isfinite(apart), apart, np.inf)
        if apart.max() > CLOSE:
            row, task = (int(number) for number in np.unravel_index(apart.argmax(), apart.shape))
            raise DataError(
                f"export: the exported score of task {tasks[task]!r} is {found[row, task]:.7g} in row {start + row} of "
                f"{total} compared, that of the run {wanted[row, task]:.7g}; nothing was written"
            )
        worst = max(worst, float(apart.max()))
    return worst


# ---- rows to compare on ---------------------------------------------------------------------------------------------


def sample_rows(run: LoadedRun, input: str | None = None) -> Raw:
    """The first rows of the run's data, or of files, as raw values.

    Raises:
        UsageError, DataError: for files that are not there, or lack columns.
    """
    if input is None:
        folder = data_folder(run.settings)
        files = [folder / f"{folder.name}.inter", folder / f"{folder.name}.test.inter"]
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            raise DataError(
                f"export: the scores are compared on rows of the run's data, and {files[0]} is not there; give other "
                "rows by --rows=FILE, or the data's place by --data_path"
            )
        input = str(file)
    table = open_input("rows", input, Reading())
    wanted = needed_columns(run, run.model.schema)
    domain = run.vocabularies.domain_field if run.model.reads_domain else None
    if domain is not None:
        wanted.setdefault(domain, "domain_field of the run")
    table.check(wanted)
    block = next(iter(table.blocks(list(wanted))), None)
    if block is None or not block.frame.height:
        raise DataError(f"{table.label}: holds no rows")
    block = block.slice(0, SAMPLED)
    kinds = _kinds(run)
    rows: Raw = {}
    for name in wanted:
        column = block.frame[name]
        if kinds.get(name) == "float":
            rows[name] = numbers_of(block, name, "a number field").to_list()
        elif kinds.get(name) == "token":
            rows[name] = plain_column(column.cast(pl.String), escaped=table.escaped).to_list()
        else:
            texts = column.str.split(" ") if column.dtype == pl.String else column
            lists = [[value for value in values or [] if value not in (None, "")] for values in texts.to_list()]
            if name in kinds:
                rows[name] = [[unescape(str(v)) if table.escaped else str(v) for v in values] for values in lists]
            else:
                rows[name] = [[float(value) for value in values] for values in lists]
    return rows


def _with_odd_rows(run: LoadedRun, rows: Raw) -> Raw:
    """The rows, one of unknown and far values, and one where everything is missing."""
    made = {name: list(values) for name, values in rows.items()}
    fields = run.model.schema.fields
    if run.model.reads_domain:
        # Every row has one that is known; where it is a field too, its odd values are out of the question.
        domains = run.vocabularies.domains
        made[str(run.vocabularies.domain_field)] += [unescape(domains[0]), unescape(domains[-1])]
        fields = tuple(spec for spec in fields if spec.name != run.vocabularies.domain_field)
    for spec in fields:
        if spec.kind == "float":
            # Without a limit, a far value makes logits so large that they cannot be compared.
            made[spec.name] += [1e6 if spec.clip is not None or spec.bins else spec.mean, None]
        elif spec.kind == "token":
            made[spec.name] += ["no token of the data", None]
        else:
            known = run.vocabularies.tokens(spec.name)
            made[spec.name] += [["no token of the data", *(unescape(token) for token in known[:1])], []]
            if spec.weights is not None:
                made[spec.weights] += [[1.0, 0.5][: 1 + len(known[:1])], []]
    return made


def _kinds(run: LoadedRun) -> dict[str, str]:
    """The kinds of the columns of fields and, as a token, the domain."""
    kinds: dict[str, str] = {spec.name: spec.kind for spec in run.model.schema.fields}
    domain = run.vocabularies.domain_field
    return kinds if domain is None else {domain: "token", **kinds}


def _frame(run: LoadedRun, rows: Raw) -> pl.DataFrame:
    kinds = _kinds(run)
    types = {"float": pl.Float64(), "token": pl.String(), "token_seq": pl.List(pl.String)}
    weights = pl.List(pl.Float64)
    schema = {name: types[kinds[name]] if name in kinds else weights for name in rows}
    return pl.DataFrame(rows, schema=schema)

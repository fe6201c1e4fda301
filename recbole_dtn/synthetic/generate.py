"""Write a synthetic raw set: calibrate the planted model, draw and write block by block, record what was planted."""

from __future__ import annotations

import importlib
import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from recbole_dtn.data.building import WRITING, locked_folder
from recbole_dtn.data.hashing import rng
from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.errors import DataError, UsageError, nearest
from recbole_dtn.synthetic.faults import KINDS
from recbole_dtn.synthetic.layout import Part, Place, Plan, SyntheticLayout
from recbole_dtn.synthetic.planted import Model, choose
from recbole_dtn.version import __version__

__all__ = [
    "LAYOUTS", "RECORD", "Planted", "best_aucs", "generate", "layout_class", "layout_options", "make_plan",
    "planted_record",
]  # fmt: skip

LAYOUTS = {
    "aliccp": "recbole_dtn.synthetic.aliccp:AliCCP",
    "aliexpress": "recbole_dtn.synthetic.aliexpress:AliExpress",
    "kuairand": "recbole_dtn.synthetic.kuairand:KuaiRand",
    "census-income": "recbole_dtn.synthetic.census:CensusIncome",
    "planted": "recbole_dtn.synthetic.pairs:PlantedPairs",
}
RECORD = "planted.json"
FORMAT = 1
# Blocks (of 65,536 rows) that weights and intercepts are solved on.
CALIBRATION_BLOCKS = 4
PLAN_OPTIONS = tuple(one.name for one in fields(Plan) if one.name not in ("rows", "seed"))


@dataclass(frozen=True)
class Planted:
    """A set that was written, and the content of its planted.json."""

    folder: Path
    record: dict[str, Any]

    def best_auc(self, task: str, group: str = "test") -> float | None:
        """The AUC that knowing every true probability is worth; ``task`` may be ``buy`` or ``buy@click``."""
        for one in self.record["tasks"]:
            if task in one["reachable"]:
                found: float | None = one["reachable"][task][group]["best_auc"]
                return found
        raise KeyError(task)


def best_aucs(folder: Path) -> dict[str, float]:
    """The best AUC of each task on all test rows of a data set that was written as atomic files; else empty.

    Raises:
        DataError: as :func:`planted_record` does.
    """
    if not (folder / RECORD).is_file():
        return {}
    record = planted_record(folder)
    found = {task["name"]: task["reachable"][task["name"]]["test"]["best_auc"] for task in record["tasks"]}
    return {name: float(best) for name, best in found.items() if best is not None}


def planted_record(folder: Path) -> dict[str, Any]:
    """The content of a folder's planted.json.

    Raises:
        DataError: for a file that :func:`generate` has not written.
    """
    file = folder / RECORD
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if record["format"] == FORMAT:
            return record
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DataError(
        f"{file}: expected what `preprocess synthetic` writes (format {FORMAT}); make the set again with --overwrite"
    )


def layout_class(like: str) -> type[SyntheticLayout]:
    """The class of a layout.

    Raises:
        UsageError: for an unknown name.
    """
    if like not in LAYOUTS:
        raise UsageError(f"--like={like}: no such layout; {nearest(like, LAYOUTS)}")
    module, _, name = LAYOUTS[like].partition(":")
    found: type[SyntheticLayout] = getattr(importlib.import_module(module), name)
    return found


def layout_options(like: str) -> dict[str, Any]:
    """The options of a layout with their defaults: those of every layout, then its own."""
    own = inspect.signature(layout_class(like).__init__).parameters.values()
    shared = {one.name: one.default for one in fields(Plan) if one.name in PLAN_OPTIONS}
    return shared | {one.name: one.default for one in own if one.kind is inspect.Parameter.KEYWORD_ONLY}


def generate(
    like: str,
    rows: int,
    seed: int,
    output: Path,
    *,
    log: Callable[[str], None] = lambda text: None,
    meter: Meter = silent,
    overwrite: bool = False,
    **options: Any,
) -> Planted:
    """Write a synthetic raw set; the same arguments give the same bytes.

    Args:
        like: a name of ``LAYOUTS``. rows: impressions (persons, for census-income) over all parts. seed: any number
            from 0. output: folder to make. log: takes lines for the user. meter: takes the progress, in rows.
        overwrite: replace ``output`` where it holds a synthetic set. options: of ``layout_options(like)``.

    Raises:
        UsageError: for a wrong option, and where ``output`` holds files. DataError: where nothing can be written.
    """
    plan, own = make_plan(like, rows, seed, options)
    layout = layout_class(like)(plan, **own)
    output = Path(output)
    refuse_output(output, overwrite)
    with _written(output) as folder:
        record = _write(layout, Place(folder, plan, output.name), log, meter)
        record["options"] = {key: options.get(key, value) for key, value in layout_options(like).items()}
        (folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return Planted(output, record)


def make_plan(like: str, rows: int, seed: int, options: Mapping[str, Any]) -> tuple[Plan, dict[str, Any]]:
    """The plan, and the layout's own options.

    Raises:
        UsageError: for an option that the layout does not have, or one out of its range.
    """
    known = layout_options(like)
    for key in options:
        if key not in known:
            raise UsageError(f"--{key}: the layout {like} has no such option; {nearest(key, known)}")
    shared = {key: value for key, value in options.items() if key in PLAN_OPTIONS}
    plan = Plan(rows, seed, **shared)
    for name, value, low, high in (
        ("rows", plan.rows, 10, 10**11),
        ("seed", plan.seed, 0, 2**63 - 1),
        ("faults", plan.faults, 0, 10_000),
        ("signal", plan.signal, 0, 10),
        ("overlap", plan.overlap, layout_class(like).least_overlap, 1),
        ("informative", plan.informative, 1, 100),
    ):
        if not low <= value <= high:
            raise UsageError(f"--{name}: expected a number from {low} to {high}; found {value}")
    return plan, {key: value for key, value in options.items() if key not in PLAN_OPTIONS}


def _write(layout: SyntheticLayout, place: Place, log: Callable[[str], None], meter: Meter) -> dict[str, Any]:
    plan = layout.plan
    model = Model(choose(layout.goals(), plan.informative, layout.shared(), plan.signal), layout.stray())
    needed = model.needed()
    parts = layout.parts()
    chosen = _calibration(parts)
    sample = []
    for done, (part, block, rows) in enumerate(chosen):
        meter("calibrating the planted model", done, len(chosen))
        sample.append(layout.draw(part, block, rows, needed).effects)
    # Blocks are pure functions of seed and number: those drawn here are drawn again when they are written.
    model.calibrate(sample)
    del sample
    done = 0
    with place.stack:
        layout.open(place)
        for part in parts:
            for block, rows in part.blocks():
                meter(f"writing {layout.unit}", done, plan.rows)
                drawn = layout.draw(part, block, rows, needed)
                random = rng(plan.seed, f"labels|{part.name}", block).random
                layout.write(drawn, model.draw(part.group, drawn.effects, random))
                done += rows
        meter(f"writing {layout.unit}", done, plan.rows)
        layout.finish()
    groups = list(dict.fromkeys(part.group for part in parts))
    log(f"{plan.rows:,} {layout.unit} in {len(place.files)} files, {sum(file.size for file in place.files):,} bytes")
    for task in model.describe(groups):
        for name, found in task["reachable"].items():
            log(f"{name}: " + "; ".join(_line(group, found[group]) for group in groups))
    return _record(layout, model, place, groups)


def _calibration(parts: list[Part]) -> list[tuple[Part, int, int]]:
    """Evenly spread blocks of the set, all of them in a small set, on which rates are calibrated."""
    every = [(part, block, rows) for part in parts for block, rows in part.blocks()]
    if len(every) <= CALIBRATION_BLOCKS:
        return every
    # The middles of four equal stretches.
    return [every[(2 * k + 1) * len(every) // (2 * CALIBRATION_BLOCKS)] for k in range(CALIBRATION_BLOCKS)]


def _line(group: str, found: dict[str, Any]) -> str:
    best = "undefined" if found["best_auc"] is None else f"{found['best_auc']:.4f}"
    return f"{group} {found['positives']:,} of {found['rows']:,} rows, best reachable AUC {best}"


def _record(layout: SyntheticLayout, model: Model, place: Place, groups: list[str]) -> dict[str, Any]:
    faults = [fault for file in place.files for fault in file.faults]
    return {
        "format": FORMAT,
        "made_by": f"recbole_dtn {__version__}",
        "like": layout.name,
        "rows": layout.plan.rows,
        "seed": layout.plan.seed,
        "synthetic": "every value is invented; nothing here may be reported as a result on the real set",
        "tasks": model.describe(groups),
        "stray": model.stray,
        "best_auc_is": "expected AUC of the true probabilities over every row of the part (65,536 bins of log-odds)",
        "notes": layout.notes(),
        "files": [{"file": file.name, "rows": file.rows, "bytes": file.size} for file in place.files],
        "fault_kinds": {kind: KINDS[kind] for kind in KINDS if any(fault["kind"] == kind for fault in faults)},
        "faults": faults,
    }


def refuse_output(output: Path, overwrite: bool) -> None:
    """Refuse a folder that holds files, unless it is a synthetic set and is to be replaced.

    Raises:
        UsageError: naming what was found.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise UsageError(f"--output={output}: expected a folder; found a file")
    held = sorted(path.name for path in output.iterdir())
    if not held:
        return
    shown = ", ".join(held[:3]) + (", ..." if len(held) > 3 else "")
    if not overwrite:
        raise UsageError(f"--output={output}: the folder holds files ({shown}); choose another, or add --overwrite")
    if RECORD not in held:
        raise UsageError(
            f"--output={output}: --overwrite replaces a synthetic set only, and there is no {RECORD} among {shown}; "
            "choose another folder"
        )


@contextmanager
def _written(output: Path) -> Iterator[Path]:
    """A folder beside ``output`` that replaces it at the end; removes what killed runs left there."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with locked_folder(output.parent, f"{WRITING}{output.name}-") as held:
            work, old = held / "files", held / "replaced"
            work.mkdir()
            yield work
            work.chmod(0o755)
            # The old set is put aside first and comes back if the new one cannot take its place.
            if output.exists():
                os.replace(output, old)
            try:
                os.replace(work, output)
            except OSError:
                if old.exists():
                    os.replace(old, output)
                raise
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror or error})") from None

"""One registry for every kind of part: built-ins by import string, installed entry points, and ``--plugins`` files.

Nothing is imported until :meth:`Registry.load` asks for the class, so that listing names and refusing a wrong one
cost neither torch nor recbole.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from recbole_dtn.errors import UsageError, nearest

__all__ = [
    "BALANCERS",
    "INTERACTIONS",
    "LOSSES",
    "METRICS",
    "MODELS",
    "PREPROCESSORS",
    "Entry",
    "Registry",
    "load_plugins",
]

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """A registered part: what a list prints, and where its class is.

    ``target`` and ``options`` are ``module:attribute``, or the object itself for a part registered by decorator.
    ``options`` is the typed options class of the part (None: read from the constructor's keyword-only arguments).
    """

    name: str
    target: Any
    summary: str
    paper: str = ""
    options: Any = None
    origin: str = "built-in"


def resolve(target: Any) -> Any:
    """Import ``module:attribute``; anything that is not a string is returned as it is."""
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Registry:
    """Names of one kind of part. ``group`` is the entry-point group that installed packages use."""

    def __init__(self, kind: str, group: str, builtins: Iterable[Entry] = ()) -> None:
        self.kind = kind
        self.group = group
        self._entries = {entry.name: entry for entry in builtins}
        self._scanned = False

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        for point in entry_points(group=self.group):
            if point.name not in self._entries:
                origin = f"package {point.dist.name}" if point.dist else "installed package"
                self._entries[point.name] = Entry(point.name, point.value, f"from {origin}", origin=origin)

    def add(self, entry: Entry) -> None:
        """Register a part.

        Raises:
            UsageError: when the name is taken by another class; registering the same class again is harmless.
        """
        self._scan()
        known = self._entries.get(entry.name)
        if known is not None and not _same_target(known.target, entry.target):
            raise UsageError(
                f"{self.kind} {entry.name!r} from {entry.origin} is already registered by {known.origin}: "
                "choose another name"
            )
        if known is None:
            self._entries[entry.name] = entry

    def register(self, name: str, *, paper: str = "", options: Any = None) -> Callable[[T], T]:
        """Class decorator: ``@REGISTRY.register("name")``; the first line of the docstring is the summary."""

        def decorate(target: T) -> T:
            summary = (getattr(target, "__doc__", None) or name).strip().splitlines()[0]
            origin = f"{getattr(target, '__module__', '?')}"
            self.add(Entry(name, target, summary, paper, options, origin))
            return target

        return decorate

    def names(self) -> tuple[str, ...]:
        """All registered names, sorted without regard to case."""
        self._scan()
        return tuple(sorted(self._entries, key=str.lower))

    def entry(self, name: str) -> Entry:
        """The entry of ``name``.

        Raises:
            UsageError: for an unknown name, with the nearest ones.
        """
        self._scan()
        if name not in self._entries:
            raise UsageError(f"unknown {self.kind} {name!r}: {nearest(name, self._entries)}")
        return self._entries[name]

    def load(self, name: str) -> Any:
        """Import and return the class behind ``name``."""
        return resolve(self.entry(name).target)

    def options(self, name: str) -> Any:
        """The typed options class of ``name`` (imports only the options' own module), or None."""
        return resolve(self.entry(name).options)


def _same_target(known: Any, new: Any) -> bool:
    def spelled(target: Any) -> str:
        return target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"

    return spelled(known) == spelled(new)


def load_plugins(paths: Iterable[str]) -> None:
    """Import each plug-in file; its decorators register what it holds.

    Raises:
        UsageError: for a file that is missing or fails to import; the message names the file, and for a syntax error
            its line, column and text.
    """
    for text in paths:
        path = Path(text).expanduser().resolve()
        name = f"recbole_dtn_plugin_{path.stem}_{abs(hash(str(path))):x}"
        if name in sys.modules:
            continue
        spec = importlib.util.spec_from_file_location(name, path) if path.is_file() else None
        if spec is None or spec.loader is None:
            raise UsageError(f"plugins: {text!r} is not a Python file (looked at {path})")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except UsageError:
            del sys.modules[name]
            raise
        except SyntaxError as error:
            del sys.modules[name]
            line = f": {error.text.strip()}" if error.text else ""
            place = f"{error.filename or path}, line {error.lineno}, column {error.offset}"
            raise UsageError(f"plugins: {place}: {error.msg}{line}") from error
        except Exception as error:
            del sys.modules[name]
            raise UsageError(f"plugins: {path} failed to import: {type(error).__name__}: {error}") from error


def _model(name: str, module: str, summary: str, paper: str) -> Entry:
    return Entry(
        name, f"recbole_dtn.model.{module}:{name}", summary, paper, f"recbole_dtn.config.models:{name}Settings"
    )


MODELS = Registry(
    "model",
    "recbole_dtn.models",
    [
        _model("DTN", "dtn", "task-specific interaction modules, selected by gates and a task-sensitive network",
               "Deep Multiple Task-specific Feature Interactions Network (arXiv 2408.11611)"),
        _model("MMoE", "mmoe", "shared experts, one softmax gate per task", "Ma et al., KDD 2018"),
        _model("PLE", "ple", "shared and task-specific experts in progressive layers (one level: CGC)",
               "Tang et al., RecSys 2020"),
        _model("SharedBottom", "shared_bottom", "one shared MLP, one tower per task", "Caruana, 1997"),
        _model("SingleTask", "single_task", "a separate network per task, embeddings included", "baseline"),
    ],
)  # fmt: skip
INTERACTIONS = Registry(
    "interaction",
    "recbole_dtn.interactions",
    [
        Entry("gdcn", "recbole_dtn.interaction.gdcn:GDCN", "gated deep cross network",
              "Wang et al., CIKM 2023", "recbole_dtn.config.interactions:GDCNOptions"),
        Entry("masknet", "recbole_dtn.interaction.masknet:MaskNet", "instance-guided masks, serial or parallel blocks",
              "Wang et al., 2021 (arXiv 2102.07619)", "recbole_dtn.config.interactions:MaskNetOptions"),
        Entry("memonet", "recbole_dtn.interaction.memonet:MemoNet", "memorises field pairs in a hashed codebook",
              "Zhang et al., 2022 (arXiv 2211.01334)", "recbole_dtn.config.interactions:MemoNetOptions"),
    ],
)  # fmt: skip
BALANCERS = Registry(
    "balancer",
    "recbole_dtn.balancers",
    [Entry("fixed", "recbole_dtn.balancer.fixed:Fixed", "sum of the task losses, each times its task's weight",
           "baseline")],
)  # fmt: skip
LOSSES = Registry("loss", "recbole_dtn.losses")
METRICS = Registry(
    "metric",
    "recbole_dtn.metrics",
    [
        Entry("auc", "recbole_dtn.metric.auc:ExactAUC", "area under the ROC curve, exact, ties counted half",
              "Hanley and McNeil, 1982"),
        Entry("logloss", "recbole_dtn.metric.logloss:LogLoss", "mean binary cross-entropy in nats", ""),
        Entry("ne", "recbole_dtn.metric.logloss:NormalisedEntropy", "log loss over that of the base rate",
              "He et al., ADKDD 2014"),
        Entry("calibration", "recbole_dtn.metric.calibration:Calibration", "mean prediction over mean label", ""),
        Entry("rmse", "recbole_dtn.metric.regression:RMSE", "root of the mean squared error (regression tasks)", ""),
        Entry("mae", "recbole_dtn.metric.regression:MAE", "mean absolute error (regression tasks)", ""),
    ],
)  # fmt: skip
PREPROCESSORS = Registry(
    "preprocessor",
    "recbole_dtn.preprocessors",
    [
        Entry("aliccp", "recbole_dtn.preprocess.aliccp.preprocessor:AliCCP",
              "Ali-CCP: click and purchase over 85 M impressions, user histories kept apart", "Ma et al., SIGIR 2018",
              "recbole_dtn.preprocess.aliccp.options:AliCCPOptions"),
        Entry("aliexpress", "recbole_dtn.preprocess.aliexpress.preprocessor:AliExpress",
              "AliExpress search log: click and conversion, one country or several as domains", "Li et al., 2020",
              "recbole_dtn.preprocess.aliexpress.options:AliExpressOptions"),
        Entry("census-income", "recbole_dtn.preprocess.census.preprocessor:CensusIncome",
              "Census-Income (KDD): income, marital status, education", "UCI archive",
              "recbole_dtn.preprocess.census.options:CensusIncomeOptions"),
        Entry("kuairand", "recbole_dtn.preprocess.kuairand.preprocessor:KuaiRand",
              "KuaiRand 1K, Pure or 27K: 11 feedback signals, user and video features joined", "Gao et al., CIKM 2022",
              "recbole_dtn.preprocess.kuairand.options:KuaiRandOptions"),
        Entry("ml-100k", "recbole_dtn.preprocess.movielens.preprocessor:MovieLens100K",
              "MovieLens-100K as shipped inside RecBole's wheel", "GroupLens"),
        Entry("ml-1m", "recbole_dtn.preprocess.movielens.preprocessor:MovieLens1M",
              "MovieLens-1M with genres", "GroupLens", "recbole_dtn.preprocess.movielens.options:MovieLens1MOptions"),
        Entry("table", "recbole_dtn.preprocess.table.preprocessor:Table",
              "tables of your own: CSV, TSV or Parquet, one file or several", ""),
    ],
)  # fmt: skip

"""The preprocessor that a run's settings name, and the checks of its files that need no torch."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_dtn.config.datasets import has_atomic_files
from recbole_dtn.config.preprocess import option_words, preprocess_options
from recbole_dtn.config.settings import Settings
from recbole_dtn.config.tasks import check_fields_and_tasks
from recbole_dtn.data.sources import data_folder, find_sources
from recbole_dtn.errors import DataError
from recbole_dtn.preprocess.base import Preprocessor, read_record
from recbole_dtn.preprocess.raw_files import TARS
from recbole_dtn.preprocess.raw_set import PROGRAM, RawSet, data_path_words
from recbole_dtn.registry import PREPROCESSORS

__all__ = ["check_files", "check_record", "make_again", "preprocessor_of", "raw_set"]


def raw_set(settings: Settings, name: str) -> RawSet:
    """The preprocessor with protocols that the settings name.

    Args:
        settings: with ``preprocessor``, ``preprocess``, ``raw``. name: of the folder under ``data_path``.
    """
    assert settings.preprocessor is not None
    maker: type[RawSet] = PREPROCESSORS.load(settings.preprocessor)
    raw = Path(settings.raw) if settings.raw is not None else None
    return maker(raw, Path(settings.data_path), name=name, options=settings.preprocess, base={})


def preprocessor_of(settings: Settings, name: str) -> Preprocessor:
    """The preprocessor that makes a run's atomic files.

    Raises:
        DataError: when its raw files are not installed and the setting ``raw`` does not name their folder.
    """
    assert settings.preprocessor is not None
    maker: type[Preprocessor] = PREPROCESSORS.load(settings.preprocessor)
    if issubclass(maker, RawSet):
        return raw_set(settings, name)
    given, data_path = settings.preprocess, Path(settings.data_path)
    options = given if isinstance(given, Mapping) else dict(given)
    if not maker.bundled and settings.raw is None:
        words = [f"--{key}={shlex.quote(str(value))}" for key, value in options.items()]
        words = ["preprocess", settings.preprocessor, "--raw=FOLDER", *words, f"--data_path={data_path}"]
        raise DataError(
            f"{data_folder(settings)}: the atomic files are missing; get the raw files ({maker.source}) and run: "
            + " ".join([PROGRAM, *words])
        )
    return maker(Path(settings.raw) if settings.raw is not None else None, data_path, name=name, **options)


def check_files(settings: Settings) -> None:
    """Check that a run's atomic files exist, or the raw files that they are made from, before torch is imported.

    Raises:
        UsageError: for fields and tasks that cannot be right. DataError: for missing files, atomic files that were made
            with other options, or a faulty header.
    """
    check_fields_and_tasks(settings)
    folder = data_folder(settings)
    if has_atomic_files(folder) or settings.preprocessor is None:
        check_record(settings, folder)
        hints = [name for name in (settings.user_field,) if name is not None]
        find_sources(folder, given=settings.split == "given", key_hints=hints)
        return
    made = preprocessor_of(settings, folder.name)
    if not isinstance(made, RawSet):
        return
    archives = (".zip", *TARS)  # listing an archive reads all of it: it is listed once, when it is opened
    if not any(path.name.lower().endswith(archives) for path in made.raw.rglob("*")):
        made.open_raw()


def check_record(settings: Settings, folder: Path) -> None:
    """Refuse atomic files that were made with other options than those in the settings.

    Raises:
        DataError: naming the options, and the command that makes the files again.
    """
    record = read_record(folder)
    if record is None or settings.preprocessor is None or record.get("set") != settings.preprocessor:
        return
    wanted = preprocess_options(settings.preprocessor, settings.preprocess).model_dump(mode="json")
    found = record.get("options", {})
    # An option that the record lacks counts as null.
    wrong = [
        f"{key}: {json.dumps(found.get(key))}, not {json.dumps(value)}"
        for key, value in wanted.items()
        if found.get(key) != value
    ]
    if wrong:
        command = make_again(settings, raw_set(settings, folder.name), record)
        raise DataError(
            f"{folder}: its files were made with other options ({'; '.join(wrong)}). To make them again: `{command}`. "
            f"To keep them, make another data set: the same command with --name=NAME in place of --overwrite, then "
            "train with --dataset=NAME"
        )


def make_again(settings: Settings, made: RawSet, record: Mapping[str, Any] | None = None) -> str:
    """The command that makes a data set's files again, with the options that the settings name.

    Args:
        settings: of the run. made: its preprocessor. record: of the files that are there (:func:`read_record`): where
            their raw folder was given, the command has to name it.
    """
    recorded = (record or {}).get("raw")
    elsewhere = isinstance(recorded, dict) and recorded.get("given")
    raw = [f"--raw={shlex.quote(settings.raw)}"] if settings.raw else ["--raw=FOLDER"] if elsewhere else []
    name = [] if made.name == made.name_of(made.options) else [f"--name={made.name}"]
    words = [*raw, *option_words(made.set_name, made.options), *name, *data_path_words(made.data_path), "--overwrite"]
    return " ".join([PROGRAM, "preprocess", made.set_name, *words])

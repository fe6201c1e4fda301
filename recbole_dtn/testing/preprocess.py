"""The checks that every preprocessor must pass, on raw files small enough to be read several times."""

from __future__ import annotations

import contextlib
import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from recbole_dtn.config.choice import keyword_options
from recbole_dtn.errors import UsageError
from recbole_dtn.inspect.validate import validate
from recbole_dtn.preprocess.base import Preprocessor, Work
from recbole_dtn.preprocess.rejects import REJECTED

__all__ = ["check_preprocessor"]

Make = Callable[[Path], Preprocessor]


def check_preprocessor(make: Make, *, max_rejected: float = 0.0) -> None:
    """Run a preprocessor on its raw files and check what it leaves.

    Its options are keyword-only arguments with a type, a description and a default of that type. The atomic files are
    the same at a second run, byte for byte, and have no fault. A data set that is there is not replaced unless that is
    asked for. A run that fails leaves nothing behind, and what a killed run left does not disturb the next one.

    Args:
        make: ``data_path -> preprocessor``, new at each call. max_rejected: share of faulty rows in the raw files.

    Raises:
        AssertionError: naming the check that failed.
    """
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        first = make(base / "first")
        # Before the run: a fault of the constructor is named as such.
        _check_options(type(first))
        folder = first.run(max_rejected=max_rejected)
        _check_files(folder, first.name)
        second = make(base / "second").run(max_rejected=max_rejected)
        assert _contents(folder) == _contents(second), f"{first.name}: a second run gave other files"
        _check_asks(make, base / "first", bundled=first.bundled and not first.raw_given)
        _check_failure(make, base / "third", max_rejected)


def _check_options(kind: type[Preprocessor]) -> None:
    """The constructor is ``(raw, data_path, *, name=None, **options)``, each option typed and described."""
    parameters = inspect.signature(kind).parameters.values()
    places = [one.name for one in parameters if one.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert places == ["raw", "data_path"], f"{kind.__name__}: expected (raw, data_path, *, ...), found {places}"
    for name, info in keyword_options(kind, leave_out=("name", "options", "base")).model_fields.items():
        assert info.description, f"{kind.__name__}: option {name!r} has no Field(description=...)"
        if info.is_required():
            continue
        kinds: Any = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
        try:
            TypeAdapter(kinds).validate_python(info.default, strict=True)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise AssertionError(f"{kind.__name__}: the default of {name!r} is not a valid value: {reason}") from None


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def _check_files(folder: Path, name: str) -> None:
    files = list(_contents(folder))
    assert any(file.startswith(f"{name}.") and file.endswith(".inter") for file in files), f"no {name}*.inter: {files}"
    fatal = [str(fault) for fault in validate(folder) if fault.fatal]
    assert not fatal, f"{name}: faulty atomic files: {fatal[:3]}"
    hidden = [path.name for path in folder.parent.iterdir() if path.name.startswith(".")]
    assert not hidden, f"{name}: left behind {hidden}"


def _check_asks(make: Make, data_path: Path, *, bundled: bool) -> None:
    """A data set that is there is replaced only with ``overwrite``."""
    made = make(data_path)
    before = _contents(made.folder)
    try:
        made.run(max_rejected=1.0)
    except UsageError:
        assert not bundled, f"{made.name}: its own files, written again, were refused"
    else:
        assert bundled, f"{made.name}: replaced a data set that was there, unasked"
    assert _contents(made.folder) == before, f"{made.name}: changed a data set that was there"


def _check_failure(make: Make, data_path: Path, max_rejected: float) -> None:
    """A failure at the very end leaves no data set; the next run makes it."""

    class _BreakError(Exception):
        pass

    made = make(data_path)
    write = made.write

    def broken(work: Work) -> dict[str, int]:
        write(work)
        raise _BreakError

    # Fails after everything has been written, at the latest moment.
    made.write = broken  # type: ignore[method-assign]
    with contextlib.suppress(_BreakError):
        made.run(max_rejected=1.0)
    # The report of rejected rows may stay: it is what the user reads after a failure.
    left = [path.name for path in made.folder.iterdir()] if made.folder.is_dir() else []
    assert not [file for file in left if file != REJECTED], f"{made.name}: a failed run left {left}"
    _check_files(make(data_path).run(max_rejected=max_rejected), made.name)

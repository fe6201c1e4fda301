"""``python run_recbole_dtn.py new <kind> <Name>``: a method of one's own, as a file that works and its test."""

from __future__ import annotations

import keyword
import re
import sys
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

from recbole_dtn.cli.arguments import Command
from recbole_dtn.cli.help_text import PROGRAM
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.registry import NAME, REGISTRIES, Registry
from recbole_dtn.report.console import make_console, say

__all__ = ["help_text", "run", "snake_case"]

KINDS: dict[str, Registry] = {registry.kind: registry for registry in REGISTRIES}
USES = {
    "model": "--plugins={file} --model={name}",
    "interaction": "--plugins={file} --interactions='[gdcn, {name}]'",
    "loss": "--plugins={file} --tasks.TASK.loss={name}",
    "balancer": "--plugins={file} --balancer={name}",
    "metric": "--plugins={file} --metrics=auc,{name}",
    "preprocessor": "preprocess {name} --plugins={file} --raw=FOLDER",
}
"""How each kind is used, on the command line."""

COMMAND = Command(
    "new",
    usage=["KIND NAME [--output=FILE]"],
    about=f"""
Writes a method of your own that works already, with comments that say what to change, and its test next to it. KIND is
one of {", ".join(KINDS)}. NAME is that of the class, such as MyName; the method is registered under its snake_case
name, my_name.
""",
    after=f"""
  {PROGRAM} new interaction MyName --output=my_name.py
  pytest test_my_name.py
  {PROGRAM} {USES["interaction"].format(file="my_name.py", name="my_name")}
""",
)
COMMAND.option("output", "FILE", "the Python file; default: <snake_case name>.py in the present folder")


@dataclass(frozen=True)
class _Written:
    """A file to write, and its text."""

    path: Path
    text: str


def help_text(words: list[str]) -> str:
    """How to call it."""
    return COMMAND.help_text()


def run(words: list[str]) -> int:
    """Write the file and its test."""
    given = COMMAND.parse(words, most_words=2)
    if len(given.words) != 2:
        raise UsageError(f"new: expected a kind and a name, as in `new interaction MyName`; kinds: {', '.join(KINDS)}")
    kind, name = given.words
    if kind not in KINDS:
        raise UsageError(f"new: unknown kind {kind!r}; {nearest(kind, KINDS)}")
    texts = [_skeleton(kind), _skeleton(f"{kind}_test")]
    class_name = _class_name(name, "".join(texts))
    method = snake_case(class_name)
    if method in KINDS[kind].names():
        raise UsageError(f"new: {kind} {method!r} exists ({KINDS[kind].entry(method).origin}); choose another name")
    made = _files(Path(given.output or f"{method}.py"), texts, class_name, method)
    for file in made:
        if file.path.exists():
            raise UsageError(f"new: {file.path} exists; move it away, or choose another file: --output=FILE")
    console = make_console()
    made[0].path.parent.mkdir(parents=True, exist_ok=True)
    for file in made:
        # "x": a file that another process has written by now is not replaced either.
        with file.path.open("x", encoding="utf-8") as out:
            out.write(file.text)
    script, test = (file.path for file in made)
    say(console, f"written: {script}, and its test {test}")
    say(console, f"  pytest {test}")
    say(console, f"  {PROGRAM} {USES[kind].format(file=script, name=method)}")
    return 0


def _files(script: Path, texts: list[str], class_name: str, method: str) -> tuple[_Written, _Written]:
    if script.suffix != ".py" or not script.stem.isidentifier():
        raise UsageError(f"--output: expected a Python file such as {method}.py; found {str(script)!r}")
    taken = script.stem in sys.stdlib_module_names or getattr(find_spec(script.stem), "origin", None)
    if taken and not script.exists():
        raise UsageError(
            f"new: {script.name} would hide the module {script.stem!r}; choose another file: --output=FILE"
        )
    values = {"Class": class_name, "name": method, "file": script.name}
    code, test = (Template(text).substitute(values) for text in texts)
    return _Written(script, code), _Written(script.with_name(f"test_{script.name}"), test)


def _skeleton(name: str) -> str:
    return (files("recbole_dtn.cli") / "skeletons" / f"{name}.txt").read_text(encoding="utf-8")


def _class_name(name: str, text: str) -> str:
    """The name of the class: as given, the words of a snake_case name joined with capitals.

    Raises:
        UsageError: for what is no name of a class, or is one that the file uses already.
    """
    made = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    if not made.isidentifier() or keyword.iskeyword(made) or not NAME.fullmatch(snake_case(made)):
        raise UsageError(f"new: expected the name of a class, such as MyName; found {name!r}")
    if re.search(rf"\b{re.escape(made)}\b", text) or keyword.iskeyword(snake_case(made)):
        raise UsageError(f"new: the file would use the name {made!r} for something else; choose another one")
    return made


def snake_case(name: str) -> str:
    """The words of a class name in small letters.

    >>> snake_case("MyName"), snake_case("FwFM"), snake_case("DCNv2"), snake_case("my_name")
    ('my_name', 'fw_fm', 'dcnv2', 'my_name')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z](?!v\d)[a-z])", "_", name).lower()

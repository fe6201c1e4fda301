"""The text of a docstring that says what a method is, as Markdown and for a terminal."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator

from recbole_dtn.cli.help_text import wrapped

__all__ = ["as_markdown", "body_of", "inline", "to_markdown", "to_terminal"]

SECTIONS = re.compile(r"^(Args|Attributes|Returns|Raises|Warns|Yields|Examples?):\s*$|^>>> ", re.MULTILINE)
ROLE = re.compile(r":[a-z]+:`~?([^`]+)`")
DOTTED = re.compile(r":[a-z]+:`~([^`]+)`")


def body_of(docstring: str | None) -> str:
    """What stands between the summary and the sections of a docstring: the equation, the paper, what differs.

    >>> body_of('''A sum.
    ...
    ...     ``y = a + b``.
    ...
    ...     Args:
    ...         a: a number.
    ...     ''')
    '``y = a + b``.'
    """
    text = inspect.cleandoc(docstring or "")
    text = SECTIONS.split(text, maxsplit=1)[0]
    return text.partition("\n")[2].strip("\n")


def inline(text: str) -> str:
    """Roles and double backquotes of reStructuredText as Markdown's code.

    >>> inline("see :class:`~recbole_dtn.model.dtn.DTN`, ``a = b``")
    'see `DTN`, `a = b`'
    """
    text = DOTTED.sub(lambda found: f"`{found[1].rpartition('.')[2]}`", text)
    return ROLE.sub(r"`\1`", text).replace("``", "`")


def as_markdown(text: str) -> str:
    """A paragraph as Markdown; stars and angle brackets outside code are no emphasis and no HTML.

    >>> as_markdown("(F*D, r) and ``a * b``")
    '(F\\\\*D, r) and `a * b`'
    """
    parts = inline(text).split("`")
    # Every other part is code.
    parts[::2] = [re.sub(r"(?<=\S)\*|\*(?=\S)|<", r"\\\g<0>", part) for part in parts[::2]]
    return "`".join(parts)


def _blocks(body: str) -> Iterator[tuple[bool, str]]:
    """Paragraphs, and literal blocks (True) without their indentation, in order."""
    waiting = body.split("\n")
    while waiting:
        lines = [waiting.pop(0)]
        while waiting and lines[-1]:
            lines.append(waiting.pop(0))
        paragraph = "\n".join(lines).strip("\n")
        literal = paragraph.endswith("::")
        if paragraph.removesuffix("::"):
            yield False, paragraph.removesuffix(":") if literal else paragraph
        block: list[str] = []
        while literal and waiting and (not waiting[0] or waiting[0].startswith(" ")):
            block.append(waiting.pop(0))
        if block:
            yield True, textwrap.dedent("\n".join(block)).strip("\n").replace("``", "")


def to_markdown(body: str) -> str:
    """A body as Markdown; what follows ``::`` is a fenced block.

    >>> print(to_markdown("With ``a``::\\n\\n    y = a\\n\\nand more."))
    With `a`:
    <BLANKLINE>
    ```text
    y = a
    ```
    <BLANKLINE>
    and more.
    """
    return "\n\n".join(f"```text\n{text}\n```" if literal else as_markdown(text) for literal, text in _blocks(body))


def to_terminal(body: str, indent: int = 2) -> list[str]:
    """A body as lines of a terminal, paragraphs folded, a blank line before each."""
    lines: list[str] = []
    for literal, text in _blocks(body):
        # A list keeps its lines.
        rows = text.split("\n")
        kept = literal or any(row.startswith(("- ", "* ", "  ")) for row in rows)
        folded = [" " * (indent + 2 * literal) + inline(row) for row in rows] if kept else wrapped(
            inline(" ".join(rows)), indent
        )  # fmt: skip
        lines += ["", *folded]
    return lines

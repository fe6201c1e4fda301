"""A configuration file that holds RecBole's keys, as a layer of our settings; each value keeps its file and line."""

from __future__ import annotations

from recbole_dtn.config.faults import Fault
from recbole_dtn.config.recbole_names import SOURCES, translate
from recbole_dtn.config.tree import Branch, from_python, plain

__all__ = ["from_recbole"]


def from_recbole(layer: Branch, faults: list[Fault]) -> Branch:
    """The layer of a file with RecBole's keys translated (:func:`translate`); a fault for each that cannot be."""
    settings, unknown = translate(plain(layer))
    faults.extend(Fault(key, f"is RecBole's setting; {line}", layer[key].where) for key, line in unknown)
    made = Branch(layer.where)
    for key, value in settings.items():
        written = next(layer[source] for source in (key, *SOURCES.get(key, ())) if source in layer)
        # What is unchanged stays as written: its text is parsed to the type that the setting declares.
        made[key] = written if plain(written) == value else from_python(value, written.where)
    return made

"""Every fault of a folder of atomic files, with file and line."""

from recbole_dtn.inspect.validate.faults import FaultGroup, find_faults, grouped, validate
from recbole_dtn.inspect.validate.keys import empty_keys

__all__ = ["FaultGroup", "empty_keys", "find_faults", "grouped", "validate"]

"""Every fault of a folder of atomic files, with file and line."""

from recbole_dtn.data.validate.faults import FaultGroup, find_faults, grouped, validate

__all__ = ["FaultGroup", "find_faults", "grouped", "validate"]

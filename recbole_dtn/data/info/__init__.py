"""What an encoded data set holds: counts of the encoder, and the statistics behind ``data info``."""

from recbole_dtn.data.info.summary import DataSummary, FieldSummary, field_summaries

__all__ = ["DataSummary", "FieldSummary", "field_summaries"]

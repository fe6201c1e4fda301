"""Options of the public sets' preprocessors, one file a set."""

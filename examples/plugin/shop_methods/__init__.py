"""One method of each kind for recbole_dtn."""

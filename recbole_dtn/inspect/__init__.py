"""Statistics of a data set (`data info`) and its faulty rows (`data validate`)."""

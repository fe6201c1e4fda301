"""Numbers, tables, plots and pages as data info, training and boards show them."""

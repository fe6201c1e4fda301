"""Parts of models whose weights are found by a solver of another library and not by gradient steps."""

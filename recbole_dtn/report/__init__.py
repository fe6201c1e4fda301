"""Consoles, numbers, tables, plots and pages that data info, training and leaderboards share."""

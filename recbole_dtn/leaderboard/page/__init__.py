"""The page of a leaderboard: one HTML file with its data, style and scripts in it."""

"""Search for settings: the space, and the trials of a study."""

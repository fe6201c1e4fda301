"""Raw files of known layouts with a planted model: the relevant fields of each task and the best AUC are known."""

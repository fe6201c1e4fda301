"""Raw files of known layouts with a planted model: which fields matter to which task is known, and the best AUC too."""

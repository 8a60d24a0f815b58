"""Where trials are kept: Optuna studies, the journal of a run folder, the names of its files."""

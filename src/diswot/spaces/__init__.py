"""Search spaces: functions of an Optuna trial that return a network."""

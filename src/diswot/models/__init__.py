"""Teachers by name, their weights, and how weights are initialised."""

"""Tasks: what a row is, and how predictions are tested."""

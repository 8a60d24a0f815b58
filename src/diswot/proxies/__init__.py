"""Scores of a student that need no training."""

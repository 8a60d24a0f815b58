"""Rank studies: scores against tables of accuracies."""

"""Labelled images by name, and the batches on which networks are scored."""

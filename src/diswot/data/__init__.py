"""Data sets of labelled images, and the batches on which networks are scored."""

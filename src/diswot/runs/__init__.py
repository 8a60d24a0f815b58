"""Run folders: the only package that reads and writes them."""

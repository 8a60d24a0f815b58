"""Run folders: used or free, read as records, built again as networks."""

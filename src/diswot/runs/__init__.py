"""Run folders: used or free, read as records, built again as networks.

`storage`, `nas`, `training`, `ranking` and `cli` write the files, and read their own to resume.
"""

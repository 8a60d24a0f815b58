"""Helpers without science: files, user code, optional imports, devices, units, versions."""

"""Small helpers without science: files, environment, optional imports, devices, units."""

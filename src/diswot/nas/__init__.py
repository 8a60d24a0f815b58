"""The search: propose an architecture, evaluate it, record the result."""

"""Training of a student, with a teacher or alone."""

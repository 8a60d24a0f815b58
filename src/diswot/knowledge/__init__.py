"""Knowledge distances between a teacher and a student, one concept a module."""

"""Training of a student, with a teacher or alone.

`distill` gives a `Distillation` (both networks, images and recipe) to a `TrainingLoop`. It runs a
`TrainingStep` for each batch. The step takes the losses from an `Objective`.
"""

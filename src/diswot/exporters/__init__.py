"""A student in the formats of other tools, with a model card."""

"""One forward pass of any network, and what the scores need from it."""

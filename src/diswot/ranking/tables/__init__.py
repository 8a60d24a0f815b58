"""Tables of accuracies of trained architectures."""

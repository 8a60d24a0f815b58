"""Tables of accuracies that others reached by training."""

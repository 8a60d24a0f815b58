"""What a network costs: parameters, MACs, activation memory, latency; and limits on them."""

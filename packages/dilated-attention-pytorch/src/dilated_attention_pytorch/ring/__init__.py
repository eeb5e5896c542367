"""Schedule, kernels and transport joined: the operator over a ring."""

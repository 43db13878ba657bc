"""Several ways to compute one convolution: rooms of equal rank, chosen by name."""

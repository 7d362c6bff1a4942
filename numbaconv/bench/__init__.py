"""Measuring against other libraries: tables of layers, peers in processes of their own, paired ratios."""

"""Results in Python, for notebooks: what `hpcbench.load` returns."""

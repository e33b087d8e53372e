"""`make gpu-check`: what needs a GPU, tried on one in a few minutes; rehearsed on a CPU."""

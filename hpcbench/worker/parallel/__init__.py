"""One training over several ranks or GPUs: who holds which part of the model, and whether that really took effect."""

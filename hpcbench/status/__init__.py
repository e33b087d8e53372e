"""The state of every job, and its reason."""

"""A training by another framework: rows and settings for it, its process, its figures."""

"""Evaluation with lm-eval."""

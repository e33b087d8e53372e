"""Hugging Face and ModelScope: names, model cards."""

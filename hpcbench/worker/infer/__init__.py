"""Answers to prompts: the prompts of a dataset as a job, or those that a person types; with transformers or vLLM."""

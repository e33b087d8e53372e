"""Answers to prompts (`cmd: infer`)."""

"""This machine as a scheduler: a queue, slots and a runner."""

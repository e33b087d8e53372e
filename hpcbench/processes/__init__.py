"""Processes of this machine, and their standard streams."""

"""Merged and quantised model folders (`cmd: export`)."""

"""Where every job stands, and why."""

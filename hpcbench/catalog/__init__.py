"""Models, datasets and chat templates as YAML data."""

"""Models, datasets and chat templates as YAML data, and the configurations of DeepSpeed."""

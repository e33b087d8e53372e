"""What the cluster can do: `init`, `doctor`, limits and accounts."""

"""What is measured in a worker, and the arithmetic."""

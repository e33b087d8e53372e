"""What people open in a browser: one HTML page with its data and its script."""

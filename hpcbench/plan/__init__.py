"""What an experiment becomes: jobs, fingerprints, decisions and arrays. Pure."""

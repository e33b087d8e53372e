"""What lies on disk or crosses from the login node to the job: values only."""

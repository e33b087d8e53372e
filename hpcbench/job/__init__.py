"""What runs inside a job before torch: claim, supervisor, launcher, samplers, release of evals."""

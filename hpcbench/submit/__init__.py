"""One way to the scheduler: plan, send, retry, cancel."""

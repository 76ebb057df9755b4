"""Traffic for a stack on the local cloud: what `make load` and `make kill-run` share."""

"""Training: fit, search, retrain, and the run directory they fill."""

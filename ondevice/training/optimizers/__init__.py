"""Optimizers that touch the rows of a batch alone."""

"""Peers: the same models on other runtimes, and other methods at the same bytes."""

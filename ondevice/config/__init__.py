"""Configurations: their sections, files and budgets."""

"""Measuring programs: bytes, latency, memory and quality, in fresh processes."""

"""Benchmarks on a phone, over adb."""

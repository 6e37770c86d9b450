"""Profiling that costs nothing when it is off: named ranges and GPU memory."""

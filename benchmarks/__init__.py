"""Measurements of speed: ratios within one run, compile and run apart, medians."""

"""Reads a sweep's store and writes it up: tables, statistics, figures and a self-contained report.

Nothing here imports jax: a report is written on any machine that has the store.
"""

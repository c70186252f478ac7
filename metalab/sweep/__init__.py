"""Sweeps: search space, plan, study, engine and what they store."""

"""Memories: sequence models that act one step at a time and learn over whole sequences."""

"""Environment wrappers, one purpose each; they compose, and ``wrapped_tasks`` draws what they need."""

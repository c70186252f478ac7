"""Meta-learning experiments in JAX: sweep files in, vectorised programs, MLflow runs and a report out.

Nothing is imported here: the command line must answer before JAX starts.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"

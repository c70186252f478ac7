"""What learners that are taught by examples learn from: corpora, corruptions of them, streams of examples."""

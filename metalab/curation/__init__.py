"""From ratings to data: a trained rater scores a corpus, and the best share of it is written back."""

"""Task distributions: what a lifetime is born into, for training and held out."""

"""Agents that learn in context: the memory is the learner, the parameters are the learning algorithm."""

"""Parts of learners that heed costs: multipliers, a memory of episodes' costs, trials."""

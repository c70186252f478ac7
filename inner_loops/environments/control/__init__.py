"""Control worlds with smooth rewards from 0 to 1, for constrained problems."""

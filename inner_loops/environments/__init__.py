"""Environments in the gymnax API: six-value ``step``, auto-reset, unbatched and pure (the caller vmaps)."""

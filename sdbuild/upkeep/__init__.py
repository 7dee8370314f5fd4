"""Asking about a store, checking it and clearing it. Builds need nothing of this."""

"""Models summarized, compared and verified. Nothing is computed or written."""

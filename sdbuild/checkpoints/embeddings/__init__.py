"""Embeddings (textual inversions): read, given words, and written into a checkpoint."""

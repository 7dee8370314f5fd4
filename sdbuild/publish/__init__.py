"""Finished bundles on the Hub: names, zips, model cards, uploads, and the way back."""

"""Pictures from a finished bundle. Knows what a bundle is, not how it was made."""

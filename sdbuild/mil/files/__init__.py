"""Models on disk: packages, compiled models and weight files, read, validated and written."""

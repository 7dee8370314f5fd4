"""`sdbuild mil …`: the commands for single models."""

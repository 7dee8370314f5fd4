"""The only faces: commands, doit tasks, and what they print."""

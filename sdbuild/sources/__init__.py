"""Where checkpoints come from. One file a kind of source; today: a folder (`folder.py`)."""

"""ML Programs without a Mac: read, write, palettize, chunk, compile and execute them.

Knows nothing of builds or of Stable Diffusion. Start at `ir/program.py`, the nouns.
"""

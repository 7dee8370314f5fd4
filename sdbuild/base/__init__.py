"""Basics that every folder uses and that import nothing of ours: errors, digests, versions, units,
suggestions, the machine. Nothing here knows of models or builds.
"""

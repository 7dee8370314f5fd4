"""What every folder needs and what needs nothing of ours: errors, digests, versions, units,
suggestions, the machine. Nothing here knows of models or builds.
"""

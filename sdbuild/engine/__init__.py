"""Planning and running: steps and their keys, plans, builds, cost, the memory budget.
What a stage does is in `steps/`.
"""

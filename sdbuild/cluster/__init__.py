"""Steps on many machines, through Dask: what a worker is and does, which artifacts go to the shared
store, and the build that hands steps out. What a step is and does is in `engine/`.
"""

"""The view of a host: the bundle's folder, its manifest, the contract with hosts, and what is asked
of it.
Nothing here generates pictures, or knows how a bundle was made.
"""

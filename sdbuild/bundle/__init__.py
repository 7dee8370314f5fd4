"""What a host sees: the bundle's folder, its manifest, and the contract with hosts.
Nothing here generates pictures, or knows how a bundle was made.
"""

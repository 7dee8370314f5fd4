"""The rules of the contract between a bundle and its hosts, by what they look at.

Each file ends with a tuple of its rules; `sdbuild/bundle/contract.py` puts them in a row.
"""

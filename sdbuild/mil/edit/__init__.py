"""Edits of programs, package to package: blobs are copied, never decoded."""

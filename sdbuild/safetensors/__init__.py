"""Safetensors files as tables of tensors: read, decoded, checked against shapes, copied.
Which tensors a checkpoint must have is not known here.
"""

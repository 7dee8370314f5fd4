"""MIL text, the `model.mil` of compiled models: printed and parsed."""

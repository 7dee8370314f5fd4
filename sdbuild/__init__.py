"""A build system that treats Core ML models as incremental, cached artifacts."""

__version__ = "0.1.0"

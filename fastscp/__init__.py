"""A DICOM storage SCP for high-volume ingest."""

__all__ = ["__version__"]

__version__ = "0.1.0"

"""Bytes -> the picture that a viewer shows."""

from fracture_watch.imaging.reader import read

__all__ = ["read"]

"""Instances at rest."""

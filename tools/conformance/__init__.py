"""Conformance with the official clients."""

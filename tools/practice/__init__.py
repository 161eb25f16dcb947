"""Florin in the hands of applications and operators; `practice.py` runs it."""

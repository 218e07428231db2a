"""Texts and labels: reading, checking, splitting and storing datasets."""

"""Weights from elsewhere: pulled from a hub or brought as a file, checked, converted, and kept for this user."""

"""Shipped triggers."""

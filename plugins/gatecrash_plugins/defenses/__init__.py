"""Shipped defenses."""

"""Shipped attacks."""

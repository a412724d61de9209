"""Mistakes in updates."""

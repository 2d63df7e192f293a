"""Measuring explanations."""

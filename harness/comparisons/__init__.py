"""Runs against each other at equal budgets."""

"""Recipes trained under one budget: python -m kpose.compare."""

"""Fuzzers: damaged inputs of every kind, each of which must end in an answer or in one clear line.

python -m tests.attack [--scale=0.01] [--kinds=records,images]     (make attack ATTACK="...")
"""

"""Chaos: rounds of the real daemon with random jobs, settings, start conditions and signals, each from one seed."""

"""Comparison of methods: how good they are with how many labels, and what an iteration costs."""

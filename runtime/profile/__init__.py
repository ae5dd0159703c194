"""Profiles: what is kept of the values of a model's inputs and outputs, and for how long."""

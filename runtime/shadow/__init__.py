"""Copies of requests, and how a shadow's answers to them differ from those that clients got."""

"""Helpers of the suites: real processes, real clients."""

"""The one place that states driftgate's version."""

VERSION = "0.1.0"

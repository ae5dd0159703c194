"""Rollouts: from a plan and counts to decisions. Pure: no clock, no network, no store."""

"""driftgate's processes, wire, policy, storage and operations."""

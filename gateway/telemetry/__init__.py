"""What leaves the gateway about its requests: records, spans, metrics, logs. Control exports; workers only record."""

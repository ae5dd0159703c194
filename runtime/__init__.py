"""Serves and measures models inside one process; knows no gRPC, SQL, HTTP or OTLP."""

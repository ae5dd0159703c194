"""The load: raw HTTP/2 that speaks gRPC, compiled, on one thread, with every reply checked."""

from bench.generator.wire import WireGenerator

__all__ = ["WireGenerator"]

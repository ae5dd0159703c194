"""The OTLP client: serialized requests to a receiver, over gRPC or HTTP, by the rules of OTLP's specification 1.11."""

"""Servers under test, each a module that runs alone: `python -m bench.servers.<name> PORT [MODEL]`."""

HOST = "127.0.0.1"
SERVICE = "inference.GRPCInferenceService"
METHOD = "ModelInfer"
PATH = f"/{SERVICE}/{METHOD}"
STREAM_PATH = f"/{SERVICE}/ModelStreamInfer"

ONE_PROCESS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)
"""Options of every stock server: a second server on the port must fail, never share the traffic unseen; and messages
may be as large as 32 images are, where gRPC by itself takes 4 MiB."""

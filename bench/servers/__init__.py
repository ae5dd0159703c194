"""Servers under test, each a module that runs alone: `python -m bench.servers.<name> PORT [MODEL]`."""

HOST = "127.0.0.1"
SERVICE = "inference.GRPCInferenceService"
METHOD = "ModelInfer"
PATH = f"/{SERVICE}/{METHOD}"
STREAM_PATH = f"/{SERVICE}/ModelStreamInfer"

ONE_PROCESS = (("grpc.so_reuseport", 0),)
"""Options of every stock server: a second server on the port must fail, never share the traffic unseen."""

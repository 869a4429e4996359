"""The board's half of Edgewright: store, lifecycle, engines, telemetry, and the gRPC services over them."""

__version__ = "0.1.0"

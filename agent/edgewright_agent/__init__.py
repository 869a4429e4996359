"""The board's half of Edgewright: store, lifecycle, engines, telemetry, and the gRPC services over them."""

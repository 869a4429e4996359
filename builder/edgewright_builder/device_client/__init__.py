"""Everything the host asks of an agent. All of it goes through `client.DeviceClient`."""

import logging
import os

# gRPC's core logs every failed handshake to stderr, where the client says it in a sentence. It reads this when it is
# first imported, which no module of this package can do before this line.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# An answer that is no message is said in a sentence too; grpc logs its traceback, which without a handler is printed.
logging.getLogger("grpc._common").addHandler(logging.NullHandler())

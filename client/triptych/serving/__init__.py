"""The embedded server: the real Triton from pip on this machine, the model repository that it serves, and its doctor.

with TritonServer(Path("model_repository"), ports=Ports.free()) as server:
    ...  # server.grpc_address serves `detection`
"""

from triptych.serving.preflight import Ports
from triptych.serving.server import TritonServer

__all__ = ["Ports", "TritonServer"]

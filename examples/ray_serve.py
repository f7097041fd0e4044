"""The service as a Ray Serve ingress, whose replicas scale with the number of open answers.

    pip install "anthro-asgi" "ray[serve]"
    serve run examples.ray_serve:deployment

Each replica has an engine of its own: here the simulated one, in earnest one that runs its model in the replica, or
`OpenAIEngine` in front of a server beside it. Ray counts open requests (`target_ongoing_requests`), which for streams
is what load is; so a replica refuses nothing itself, and Ray's queue is the line.
"""

from ray import serve

from anthro_asgi import MessagesApp
from anthro_asgi.simulator import SimulatedEngine

OPEN = 256  # answers that a replica runs at the same time


def app() -> MessagesApp:
    """Runs in each replica, so that the application need not be serialized."""
    return MessagesApp(SimulatedEngine())


@serve.deployment(
    max_ongoing_requests=OPEN,
    autoscaling_config={"min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": OPEN / 2},
    graceful_shutdown_timeout_s=60,
)
@serve.ingress(app)
class Messages:
    """The class that Ray runs in each replica. The application serves the requests."""


deployment = Messages.bind()

"""Client of twilio-edge, which verifies Twilio's webhooks in Envoy and sends messages.

- `twilio_edge.sdk`: HTTP client with which Twilio's SDK sends through the sidecar.
- `twilio_edge.webhooks`: reads the trusted headers of a webhook that the filter has verified.
- `twilio_edge.sinks`: verifies the signature of an event that the sidecar delivers.
- `twilio_edge.events`: types of these events.
- `twilio_edge.flask`, `twilio_edge.django`, `twilio_edge.fastapi`: both verifiers in a framework.
- `twilio_edge.v1`: the API `/v1` with types (needs the extra `client`).
"""

from importlib.metadata import version as _version

from .errors import ApiError, EdgeError, UnverifiedEventError, UnverifiedWebhookError
from .sinks import SinkVerifier
from .webhooks import TrustedWebhook, trusted_webhook

__version__ = _version("twilio-edge")
__all__ = [
    "ApiError",
    "EdgeError",
    "SinkVerifier",
    "TrustedWebhook",
    "UnverifiedEventError",
    "UnverifiedWebhookError",
    "__version__",
    "trusted_webhook",
]

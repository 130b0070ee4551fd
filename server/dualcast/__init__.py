"""dualcast: one notification server for EventSource and WebSocket clients over one event bus."""

__version__ = "0.1.0"

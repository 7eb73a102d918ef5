"""WHAT crosses the socket: messages, framing and the worker's side of the conversation. Pure."""

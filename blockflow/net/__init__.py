"""The sockets: tornado serves, workers use a plain blocking client, both over TLS."""

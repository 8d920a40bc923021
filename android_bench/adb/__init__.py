"""The way to a phone: transports, keys, addresses, and a link that survives breaks."""

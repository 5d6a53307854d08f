"""The asynchronous client: the source of both."""

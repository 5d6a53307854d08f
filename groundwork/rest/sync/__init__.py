"""The client without asyncio: made from `aio` by `python -m groundwork.rest.twin`, all but `waiting.py`."""

"""The dashboard: pages over the same services as the API, served by it. Nothing here knows a rule of its own."""

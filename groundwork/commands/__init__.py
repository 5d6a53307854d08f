"""The commands that talk to a server over HTTP: one module for each noun.

They need the bare install alone. What they import beyond typer is imported when one runs, so that the roles of the
server, which start through the same program, start as quickly as before.
"""

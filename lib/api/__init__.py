"""What the server answers, without the server: handlers, streams and their description.

Nothing here knows Bottle: a handler takes a `Request` and returns an `Answer`.
Each module names its endpoints in ROUTES; lib/api/routes.py puts them together.
"""

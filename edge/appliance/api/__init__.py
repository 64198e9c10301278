"""The handlers, by noun. Each returns an answer or raises `ApiError`; ``app.py`` renders it."""

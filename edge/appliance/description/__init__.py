"""The public API described as OpenAPI 3.1, served as ``GET /openapi.json``.

Three sources and no copy of any: the routes of the application say what there is, the models say what goes
in, and ``calls.py`` (one row per route) says what comes out, in the schemas of ``answers.py``.
"""

"""Running the edge: telemetry, the admin listener, start, workers and drain."""

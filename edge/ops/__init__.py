"""Running the edge: settings files, start and stop, workers, logs, metrics."""

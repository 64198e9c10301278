# syntax=docker/dockerfile:1
# Two stages: the first makes a virtual environment from the lock file, the second has only that, the
# interpreter and an unprivileged user. No compiler, no test tools, no sources but the package.

FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/preview-edge
COPY requirements/run.txt requirements/run.txt
RUN /opt/preview-edge/bin/pip install --no-cache-dir --disable-pip-version-check \
        --only-binary :all: --require-hashes -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY edge edge
# The build backend is in the lock file, so nothing unlocked is fetched; it and pip are not needed to run.
RUN /opt/preview-edge/bin/pip install --no-cache-dir --disable-pip-version-check \
        --no-deps --no-build-isolation . \
    && /opt/preview-edge/bin/pip uninstall --yes --quiet flit_core pip

FROM python:3.13-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin edge \
    && install --directory --owner=edge --group=edge /var/log/preview-edge
COPY --from=build /opt/preview-edge /opt/preview-edge
ENV PATH=/opt/preview-edge/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PREVIEW_EDGE_LISTEN__HOST=0.0.0.0 \
    PREVIEW_EDGE_LISTEN__ADMIN_HOST=0.0.0.0
USER 10001:10001
EXPOSE 3001 3002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["preview-edge", "healthcheck"]
# Settings: mount a file and name it in PREVIEW_EDGE_CONFIG, or give all of them as PREVIEW_EDGE_*.
ENTRYPOINT ["preview-edge"]
CMD ["serve"]

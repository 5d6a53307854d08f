# Two images from one file: `docker build --target api .` (no torch) and `docker build --target worker .` (engine, worker, inference).
FROM python:3.12-slim AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --create-home --uid 10001 groundwork && mkdir -p /var/lib/groundwork && chown groundwork /var/lib/groundwork
WORKDIR /opt/groundwork
COPY pyproject.toml constraints.txt README.md ./
COPY groundwork groundwork
COPY ssl_core ssl_core
ENV GROUNDWORK_DATA_DIR=/var/lib/groundwork

FROM base AS api
COPY app app
COPY migrations migrations
COPY worker worker
RUN pip install -c constraints.txt '.[api]'
USER groundwork
EXPOSE 8420
ENV GROUNDWORK_HOST=0.0.0.0
HEALTHCHECK --interval=10s --timeout=3s CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8420/healthz', timeout=2)"
CMD ["groundwork", "api"]

FROM base AS worker
# For a GPU image pass the index that carries the CUDA build: --build-arg TORCH_INDEX=…
ARG TORCH_INDEX=""
COPY app app
COPY migrations migrations
COPY worker worker
RUN if [ -n "$TORCH_INDEX" ]; then pip install --index-url "$TORCH_INDEX" 'torch>=2.11,<2.14'; fi && pip install -c constraints.txt '.[worker]'
USER groundwork
CMD ["groundwork", "worker"]

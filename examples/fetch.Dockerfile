# Web pages as Markdown: mcp-server-fetch from PyPI.
#
#   docker build -t mcp-bridge -f docker/Dockerfile . && docker build -t fetch - < examples/fetch.Dockerfile
#   docker run --rm -p 127.0.0.1:8080:8080 --read-only --cap-drop ALL fetch
#
# It refuses private and loopback addresses by itself, and obeys robots.txt; `--proxy-url` sends it through a proxy. It
# remembers nothing, so a session survives its process.
FROM python:3.13-slim-bookworm
RUN pip install --no-cache-dir mcp-server-fetch==2026.10.24

COPY --from=mcp-bridge /mcp-bridge /usr/local/bin/
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK CMD ["mcp-bridge", "--healthcheck"]
ENTRYPOINT ["mcp-bridge", "--on-exit", "respawn", "--", "mcp-server-fetch"]

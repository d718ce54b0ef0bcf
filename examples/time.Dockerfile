# Times and time zones: mcp-server-time from PyPI.
#
#   docker build -t mcp-bridge -f docker/Dockerfile . && docker build -t time - < examples/time.Dockerfile
#   docker run --rm -p 127.0.0.1:8080:8080 --read-only --cap-drop ALL time
#
# It remembers nothing, so a session survives its process: one that dies is replaced and the client notices nothing.
FROM python:3.13-slim-bookworm
RUN pip install --no-cache-dir mcp-server-time==2026.10.19

COPY --from=mcp-bridge /mcp-bridge /usr/local/bin/
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK CMD ["mcp-bridge", "--healthcheck"]
ENTRYPOINT ["mcp-bridge", "--on-exit", "respawn", "--", "mcp-server-time", "--local-timezone", "UTC"]

# One SQLite database: mcp-server-sqlite from PyPI.
#
#   docker build -t mcp-bridge -f docker/Dockerfile . && docker build -t sqlite - < examples/sqlite.Dockerfile
#   docker run --rm -p 127.0.0.1:8080:8080 --read-only --cap-drop ALL -v sqlite:/data sqlite
#
# The tables are in the volume, the same for all sessions; the memo of insights is in each session's process and goes
# with it. SQLite locks the whole file for each write: few writers, many readers.
FROM python:3.13-slim-bookworm
RUN pip install --no-cache-dir mcp-server-sqlite==2025.4.25 \
    && install -d -o 65532 -g 65532 /data
VOLUME /data

COPY --from=mcp-bridge /mcp-bridge /usr/local/bin/
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK CMD ["mcp-bridge", "--healthcheck"]
ENTRYPOINT ["mcp-bridge", "--", "mcp-server-sqlite", "--db-path", "/data/sqlite.db"]

# A stdio server, served over HTTP from its own container: three lines of the server's, the rest is the bridge's.
#
#   docker build -t mcp-bridge -f docker/Dockerfile .
#   docker build -t time -f docker/example.Dockerfile .
#   docker run --rm -p 8080:8080 --read-only --cap-drop ALL time     # http://127.0.0.1:8080/mcp
FROM python:3.13-slim-bookworm
RUN pip install --no-cache-dir mcp-server-time
# The node way:
#   FROM node:22-bookworm-slim
#   RUN npm install --global @modelcontextprotocol/server-sequential-thinking && npm cache clean --force
#   ENTRYPOINT ["mcp-bridge", "--", "mcp-server-sequential-thinking"]
# Install at build time and name the installed command: `uvx` and `npx` would download while a client waits, into a cache
# that a read-only container does not have.

COPY --from=mcp-bridge /mcp-bridge /usr/local/bin/
USER 65532:65532
EXPOSE 8080
# The bridge drains on SIGTERM; a shell between it and the engine would swallow the signal, hence the exec forms.
STOPSIGNAL SIGTERM
HEALTHCHECK CMD ["mcp-bridge", "--healthcheck"]
ENTRYPOINT ["mcp-bridge", "--", "mcp-server-time"]

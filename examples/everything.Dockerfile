# Every feature of the protocol, to try a client with: @modelcontextprotocol/server-everything from npm.
#
#   docker build -t mcp-bridge -f docker/Dockerfile . && docker build -t everything - < examples/everything.Dockerfile
#   docker run --rm -p 127.0.0.1:8080:8080 --read-only --cap-drop ALL everything
#
# With all that the bridge can do on the wire: streams that can be resumed from the start, and the transport of
# 2024-11-05 at /sse. Its tool get-env prints the environment: keep secrets out of this container.
FROM node:22-bookworm-slim
RUN npm install --global @modelcontextprotocol/server-everything@2026.8.31 && npm cache clean --force

COPY --from=mcp-bridge /mcp-bridge /usr/local/bin/
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK CMD ["mcp-bridge", "--healthcheck"]
ENTRYPOINT ["mcp-bridge", "--prime", "--sse-compat", "--", "mcp-server-everything", "stdio"]

# Files of one folder: @modelcontextprotocol/server-filesystem from npm.
#
#   docker build -t mcp-bridge -f docker/Dockerfile . && docker build -t filesystem - < examples/filesystem.Dockerfile
#   docker run --rm -p 127.0.0.1:8080:8080 --read-only --cap-drop ALL --user "$(id -u):$(id -g)" -v "$PWD":/data filesystem
#
# All sessions see the same files. A client that announces roots replaces /data with them for its own session, and the
# container's walls are then all that holds it: mount nothing else. `-v "$PWD":/data:ro` lets nobody write.
FROM node:22-bookworm-slim
RUN npm install --global @modelcontextprotocol/server-filesystem@2026.8.31 && npm cache clean --force \
    && install -d -o 65532 -g 65532 /data
VOLUME /data

COPY --from=mcp-bridge /mcp-bridge /usr/local/bin/
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK CMD ["mcp-bridge", "--healthcheck"]
ENTRYPOINT ["mcp-bridge", "--", "mcp-server-filesystem", "/data"]

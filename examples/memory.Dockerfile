# A knowledge graph that outlives its sessions: @modelcontextprotocol/server-memory from npm.
#
#   docker build -t mcp-bridge -f docker/Dockerfile . && docker build -t memory - < examples/memory.Dockerfile
#   docker run --rm -p 127.0.0.1:8080:8080 --read-only --cap-drop ALL -v memory:/data memory
#
# One graph for everybody who reaches the port: for several people, one container each. Each call reads the file and
# each change writes all of it, so of two sessions that write in the same moment one loses.
FROM node:22-bookworm-slim
RUN npm install --global @modelcontextprotocol/server-memory@2026.8.31 && npm cache clean --force \
    && install -d -o 65532 -g 65532 /data
# Without this the file would be among the installed packages, where this user cannot write.
ENV MEMORY_FILE_PATH=/data/memory.jsonl
VOLUME /data

COPY --from=mcp-bridge /mcp-bridge /usr/local/bin/
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK CMD ["mcp-bridge", "--healthcheck"]
ENTRYPOINT ["mcp-bridge", "--on-exit", "respawn", "--", "mcp-server-memory"]

# GitHub, each client with its own token: @modelcontextprotocol/server-github from npm.
#
#   docker build -t mcp-bridge -f docker/Dockerfile . && docker build -t github - < examples/github.Dockerfile
#   docker run --rm -p 127.0.0.1:8080:8080 --read-only --cap-drop ALL github
#
# A client sends its token with `initialize`, in the header X-GitHub-Token; only the process of its session gets it. That
# is a password, so let nobody reach the port but through TLS. One for all instead: -e GITHUB_PERSONAL_ACCESS_TOKEN.
FROM node:22-bookworm-slim
RUN npm install --global @modelcontextprotocol/server-github@2025.4.8 && npm cache clean --force
# GitHub's own server takes the same variable. It is in no package registry; instead of the two lines above:
#   FROM ghcr.io/github/github-mcp-server
# and "/server/github-mcp-server", "stdio" as the end of the ENTRYPOINT.

COPY --from=mcp-bridge /mcp-bridge /usr/local/bin/
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK CMD ["mcp-bridge", "--healthcheck"]
# It remembers nothing, so a session survives its process: one that dies is replaced, with the same token.
ENTRYPOINT ["mcp-bridge", "--env-from-header", "GITHUB_PERSONAL_ACCESS_TOKEN=X-GitHub-Token", "--on-exit", "respawn", "--", "mcp-server-github"]

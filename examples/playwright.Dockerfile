# A browser for each session: @playwright/mcp from npm, with Debian's Chromium.
#
#   docker build -t mcp-bridge -f docker/Dockerfile . && docker build -t playwright - < examples/playwright.Dockerfile
#   docker run --rm -p 127.0.0.1:8080:8080 --cap-drop ALL --memory 4g playwright
#
# A browser starts at a session's first call and takes hundreds of MiB, hence few sessions and a short idle time. It
# opens any address that the container reaches, of the inner network too. Screenshots and the like stay in /tmp.
FROM node:22-bookworm-slim
RUN apt-get update && apt-get install --yes --no-install-recommends chromium && rm -rf /var/lib/apt/lists/* \
    && npm install --global @playwright/mcp@0.0.83 && npm cache clean --force

COPY --from=mcp-bridge /mcp-bridge /usr/local/bin/
USER 65532:65532
# A user without a home: the browser and the server write here.
ENV HOME=/tmp
WORKDIR /tmp
EXPOSE 8080
STOPSIGNAL SIGTERM
ENV MCP_BRIDGE_MAX_SESSIONS=8 MCP_BRIDGE_IDLE_TIMEOUT=10m
HEALTHCHECK CMD ["mcp-bridge", "--healthcheck"]
# `--isolated`: a profile in memory, since two browsers cannot share one on disk. `--no-sandbox`: Chromium's own walls
# need what a container does not allow; its walls are the container's.
ENTRYPOINT ["mcp-bridge", "--", "playwright-mcp", "--headless", "--isolated", "--no-sandbox", "--executable-path", "/usr/bin/chromium"]

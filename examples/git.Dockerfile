# One git repository: mcp-server-git from PyPI.
#
#   docker build -t mcp-bridge -f docker/Dockerfile . && docker build -t git - < examples/git.Dockerfile
#   docker run --rm -p 127.0.0.1:8080:8080 --cap-drop ALL --user "$(id -u):$(id -g)" -v "$PWD":/repo git
#
# All sessions work in the one work tree that is mounted. Without `--user` they can only read it; to commit they want a
# name too: -e GIT_AUTHOR_NAME=… -e GIT_AUTHOR_EMAIL=…, and the same with COMMITTER.
FROM python:3.13-slim-bookworm
# git refuses a repository that belongs to somebody else unless it is told to trust it.
RUN apt-get update && apt-get install --yes --no-install-recommends git && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /repo \
    && pip install --no-cache-dir mcp-server-git==2026.10.19

COPY --from=mcp-bridge /mcp-bridge /usr/local/bin/
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK CMD ["mcp-bridge", "--healthcheck"]
ENTRYPOINT ["mcp-bridge", "--", "mcp-server-git", "--repository", "/repo"]

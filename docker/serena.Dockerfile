# Serena behind the bridge: each session is a Serena of its own, with its own active project and its own language servers.
#
#   docker build -t mcp-bridge -f docker/Dockerfile .
#   docker build -t serena -f docker/serena.Dockerfile .
#   docker run --rm -p 127.0.0.1:8080:8080 --cap-drop ALL -v "$PWD":/workspace serena     # http://127.0.0.1:8080/mcp
#
# Serena edits files and runs commands, and whoever reaches the port can tell it to: publish it on loopback, or put it
# behind something that authenticates. Its user must be able to write the folder: `--build-arg UID="$(id -u)"` makes it you.
FROM python:3.13-slim-bookworm
ARG UID=65532
# Language servers for Python and TypeScript. Others want other programs: Go takes `go` and `gopls` from PATH.
COPY --from=node:22-bookworm-slim /usr/local/ /usr/local/
RUN apt-get update && apt-get install --yes --no-install-recommends git && rm -rf /var/lib/apt/lists/* \
    && pip install --no-cache-dir serena-agent==2.1.0 \
    && npm install --global pyright@1.1.403 && npm cache clean --force

# Whatever would be downloaded while a client waits is installed here: pyright by its path, instead of with uvx at the
# first symbol call, and TypeScript by Serena itself. No window, no browser, no dashboard, no report of its use.
ENV HOME=/home/serena SERENA_HOME=/home/serena/.serena SERENA_USAGE_REPORTING=false
RUN mkdir -p "$SERENA_HOME" /workspace && printf '%s\n' \
        'web_dashboard: false' 'web_dashboard_open_on_launch: false' 'gui_log_window: false' \
        'trusted_project_path_patterns: []' 'projects: []' \
        'ls_specific_settings: { python: { ls_path: /usr/local/bin/pyright-langserver } }' \
        > "$SERENA_HOME/serena_config.yml" \
    && serena download-ls-dependencies typescript \
    && chown -R "$UID:$UID" "$HOME" /workspace

COPY --from=mcp-bridge /mcp-bridge /usr/local/bin/
USER $UID:$UID
WORKDIR /workspace
EXPOSE 8080
STOPSIGNAL SIGTERM
# What a session takes grows with its language servers. Serena 2.1.0 with projects of five files, RSS / PSS in MB: without one
# 101/93, Go 186/178, Python 293/256, JavaScript 487/391, three of them 724/582.
ENV MCP_BRIDGE_MAX_SESSIONS=16
HEALTHCHECK CMD ["mcp-bridge", "--healthcheck"]
# With several projects below /workspace, leave `--project` out: clients name theirs with the tool activate_project.
# `--agent-interface tools` has one tool per operation, the way of Serena 1; without it there is one tool that runs Python.
ENTRYPOINT ["mcp-bridge", "--", "serena", "start-mcp-server", "--project", "/workspace", "--agent-interface", "tools", "--enable-web-dashboard", "false", "--enable-gui-log-window", "false"]

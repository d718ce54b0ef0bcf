# Serena for several projects and people, from the image of docker/serena.Dockerfile: each session activates its own.
#
#   docker build -t mcp-bridge -f docker/Dockerfile .
#   docker build -t serena -f docker/serena.Dockerfile --build-arg UID="$(id -u)" .
#   docker build -t serena-projects - < examples/serena.Dockerfile
#   docker run --rm --stop-timeout 30 -p 127.0.0.1:8080:8080 --cap-drop ALL -v "$HOME/src":/workspace serena-projects
#
# A session takes about 100 MB without a language server and 200 to 700 with them (see docker/serena.Dockerfile), hence few
# sessions. One Serena is kept started and counts as one. A Serena that leaves has 15 s to stop its language servers. When the
# container stops, it has 18 s of the 24, or 7.5 s if its calls took the 10.5 s that they may take. docker itself waits 10 s,
# unless it is told to wait longer: `--stop-timeout`, `stop_grace_period` of compose, terminationGracePeriodSeconds.
FROM serena
ENV MCP_BRIDGE_WARM=1 MCP_BRIDGE_MAX_SESSIONS=8 MCP_BRIDGE_STOP_GRACE=15s \
    MCP_BRIDGE_SHUTDOWN_TIMEOUT=24s
# Without `--project`: clients call the tool activate_project with a folder below /workspace.
ENTRYPOINT ["mcp-bridge", "--", "serena", "start-mcp-server", "--agent-interface", "tools", "--enable-web-dashboard", "false", "--enable-gui-log-window", "false"]

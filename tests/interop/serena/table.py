"""What is asked of Serena: one line per case, in order, for each of the four projects.

A case is its name, what is called, with what, the verdict, and what the answer must contain. A word with a slash is a
method of the protocol, any other a tool. `{PROJECTS}` is the folder of the session's own copies of the projects.
"""

import typing

OK, REFUSED, ERROR = "ok", "tool error", "JSON-RPC error"  # the verdicts


class Case(typing.NamedTuple):
    name: str
    call: str
    arguments: object  # a tool's arguments, a method's params; None: none are sent
    verdict: str
    says: str = ""


def cases(*rows):
    return [Case(*row) for row in rows]


def path(name):
    return {"project": f"{{PROJECTS}}/{name}", "session": "table"}


def named(name):
    return {"project": name, "session": "table"}


OPENING = cases(
    ("tools", "tools/list", None, OK, "find_referencing_symbols"),
    ("ping", "ping", None, OK),
    ("no resources", "resources/list", {}, OK, '"resources":[]'),
    ("no prompts", "prompts/list", {}, OK, '"prompts":[]'),
    ("a prompt that is not there", "prompts/get", {"name": "nobody"}, ERROR, "nobody"),
    ("a method that is not there", "no/such/method", {"deep": [{"a": None}]}, ERROR, "-32601"),
    ("a call of nothing", "tools/call", None, ERROR, "-32602"),
    ("a call without a name", "tools/call", {"arguments": {}}, ERROR, "-32602"),
    ("a call whose name is a number", "tools/call", {"name": 7}, ERROR, "-32602"),
    ("a call whose arguments are a string", "tools/call", {"name": "list_dir", "arguments": "x"}, ERROR, "-32602"),
    ("a tool that is not there", "no_such_tool ☃", {}, REFUSED, "no_such_tool ☃"),
    ("the manual", "initial_instructions", {}, OK, "get_symbols_overview"),
    ("a symbol before any project", "find_symbol", {"name_path_pattern": "Tree"}, REFUSED, "No active project"),
    ("a memory before any project", "list_memories", {}, REFUSED, "No active project"),
    ("no project of that name", "activate_project", named("nowhere"), REFUSED, "'nowhere' not found"),
    ("no project at that path", "activate_project", path("nowhere"), REFUSED, "not found"),
    ("activation of nothing", "activate_project", {"session": "table"}, REFUSED, "Field required"),
)

TREES = {"relative_path": "orchard/trees.py"}
BASKET = {"relative_path": "orchard/basket.py"}

PYTHON = cases(
    ("activate", "activate_project", path("python"), OK, "Active language servers: python"),
    # The first symbol call waits for the language server.
    ("overview", "get_symbols_overview", TREES, OK, '\\"Class\\": [\\"Tree\\", \\"Apple\\"]'),
    ("overview with members", "get_symbols_overview", BASKET | {"depth": 1}, OK, "fill"),
    ("overview of no file", "get_symbols_overview", {"relative_path": "orchard/none.py"}, REFUSED, "none.py"),
    ("overview of a folder", "get_symbols_overview", {"relative_path": "orchard"}, REFUSED, "orchard"),
    ("a class with its body", "find_symbol", {"name_path_pattern": "Apple", "include_body": True}, OK, "class Apple(Tree)"),
    ("a method by its path", "find_symbol", {"name_path_pattern": "Tree/harvest"} | TREES, OK, "Method"),
    ("members of a class", "find_symbol", {"name_path_pattern": "/Basket", "depth": 1}, OK, "__init__"),
    ("part of a name", "find_symbol", {"name_path_pattern": "harv", "substring_matching": True}, OK, "Apple/harvest"),
    ("what a symbol is", "find_symbol", {"name_path_pattern": "oldest", "include_info": True}, OK, "größer heißt älter» ☃"),
    ("only functions", "find_symbol", {"name_path_pattern": "autumn", "include_kinds": [12]}, OK, "Function"),
    ("more matches than wanted", "find_symbol", {"name_path_pattern": "harvest", "max_matches": 1}, REFUSED, "Matched 2"),
    ("no such symbol", "find_symbol", {"name_path_pattern": "Pear"}, OK, "[]"),
    ("a symbol without a name", "find_symbol", TREES, REFUSED, "Field required"),
    ("a symbol whose name is a number", "find_symbol", {"name_path_pattern": 3}, REFUSED, "valid string"),
    ("references to a class", "find_referencing_symbols", {"name_path": "Tree"} | TREES, OK, "Basket/fill"),
    ("references to a function", "find_referencing_symbols", {"name_path": "oldest"} | TREES, OK, "autumn"),
    ("references to no symbol", "find_referencing_symbols", {"name_path": "Pear"} | TREES, REFUSED, "Pear"),
    ("declaration", "find_declaration", {"regex": r"tree\.(harvest)"} | BASKET, OK, "Tree/harvest"),
    ("declaration of several", "find_declaration", {"regex": "(count)"} | BASKET, REFUSED, "unique"),
    ("diagnostics", "get_diagnostics_for_file", BASKET, OK),
    ("folder", "list_dir", {"relative_path": "orchard", "recursive": False}, OK, "trees.py"),
    ("folder that is not there", "list_dir", {"relative_path": "none", "recursive": True}, OK, "error"),
    ("folder without a path", "list_dir", {"recursive": True}, REFUSED, "Field required"),
    ("files by a mask", "find_file", {"file_mask": "*.py", "relative_path": "."}, OK, "orchard/basket.py"),
    ("files by no mask", "find_file", {"file_mask": "*.c", "relative_path": "."}, OK, '[]'),
    ("search", "search_for_pattern", {"substring_pattern": "LIMIT", "restrict_search_to_code_files": True}, OK, "basket.py"),
    ("search with lines around", "search_for_pattern",
        {"substring_pattern": "return .*count", "context_lines_before": 1, "context_lines_after": 1}, OK, "wanted"),
    ("search in some files", "search_for_pattern", {"substring_pattern": "Run", "paths_include_glob": "*.md"}, OK, "README"),
    ("search that finds nothing", "search_for_pattern", {"substring_pattern": "plum"}, OK, "{}"),
    ("search for no pattern", "search_for_pattern", {"substring_pattern": "("}, REFUSED, "unterminated subpattern"),
    ("read", "read_file", TREES, OK, "What grows"),
    ("read two lines", "read_file", BASKET | {"start_line": 2, "end_line": 3}, OK, "from orchard.trees import"),
    ("read too much", "read_file", TREES | {"max_answer_chars": 10}, OK, "too long"),
    ("read what is not there", "read_file", {"relative_path": "none.txt"}, REFUSED, "none.txt"),
    ("read outside of the project", "read_file", {"relative_path": "../../../../etc/hostname"}, REFUSED, "hostname"),
    ("create a file", "create_text_file",
        {"relative_path": "orchard/pear.py", "content": "PEARS = 3  # ü ☃ 𝄞\n"}, OK, "created"),
    ("create one outside", "create_text_file", {"relative_path": "../pear.py", "content": ""}, REFUSED, "pear.py"),
    ("replace text", "replace_content",
        {"relative_path": "orchard/pear.py", "needle": "3", "repl": "4", "mode": "literal"}, OK),
    ("replace by a pattern", "replace_content",
        {"relative_path": "orchard/pear.py", "needle": r"(PEARS) = (\d)", "repl": "$!1 = $!2$!2", "mode": "regex"}, OK),
    ("replace what is not there", "replace_content",
        {"relative_path": "orchard/pear.py", "needle": "plum", "repl": "", "mode": "literal"}, REFUSED),
    ("replace in no mode", "replace_content",
        {"relative_path": "orchard/pear.py", "needle": "4", "repl": "", "mode": "magic"}, REFUSED, "literal"),
    ("the file after that", "read_file", {"relative_path": "orchard/pear.py"}, OK, "PEARS = 44  # ü ☃ 𝄞"),
    ("replace everywhere, on trial", "replace_in_files",
        {"needle": "LIMIT", "repl": "ROOM", "mode": "literal", "dry_run": True}, OK, "ROOM"),
    ("replace everywhere", "replace_in_files",
        {"needle": "LIMIT", "repl": "ROOM", "mode": "literal", "relative_path": "orchard"}, OK),
    ("replace a body", "replace_symbol_body",
        {"name_path": "autumn", "body": "def autumn() -> int:\n    return Basket().fill(Apple(7))"} | BASKET, OK),
    ("insert after", "insert_after_symbol", {"name_path": "Apple", "body": "\n\nclass Plum(Tree):\n    \"\"\"Blue.\"\"\"\n"} | TREES, OK),
    ("insert before", "insert_before_symbol", {"name_path": "oldest", "body": "FEW = 3\n\n\n"} | TREES, OK),
    ("insert after nothing", "insert_after_symbol", {"name_path": "Pear", "body": "x"} | TREES, REFUSED, "Pear"),
    ("rename", "rename_symbol", {"name_path": "Tree/harvest", "new_name": "pick"} | TREES, OK, "renamed"),
    ("delete what is used", "safe_delete_symbol", {"name_path_pattern": "Apple"} | TREES, OK, "basket.py"),
    ("delete what is not used", "safe_delete_symbol", {"name_path_pattern": "Plum"} | TREES, OK),
    ("overview after the edits", "get_symbols_overview", TREES, OK, "FEW"),
    ("callers after the renaming", "find_referencing_symbols", {"name_path": "Tree/pick"} | TREES, OK, "tree.pick()"),
    ("onboarding", "onboarding", {}, OK, "write_memory"),
    ("remember", "write_memory", {"memory_name": "style/names", "content": "short ☃\n"}, OK, "style/names"),
    ("recall", "read_memory", {"memory_name": "style/names"}, OK, "short ☃"),
    ("correct a memory", "edit_memory",
        {"memory_name": "style/names", "needle": "short", "repl": "plain", "mode": "literal"}, OK),
    ("rename a memory", "rename_memory", {"old_name": "style/names", "new_name": "words"}, OK, "words"),
    ("recall under its old name", "read_memory", {"memory_name": "style/names"}, REFUSED, "not found"),
    ("all memories", "list_memories", {}, OK, "words"),
    ("remember without a name", "write_memory", {"content": "x"}, REFUSED, "Field required"),
    ("a command", "execute_shell_command", {"command": "printf '%s\\n' \"${PWD##*/}\" >&2; exit 3"}, OK, "python"),
)

TYPESCRIPT = cases(
    ("activate", "activate_project", path("typescript"), OK, "Active language servers: typescript"),
    ("overview", "get_symbols_overview", {"relative_path": "src/book.ts"}, OK, "Readable"),
    ("a class with its body", "find_symbol", {"name_path_pattern": "Shelf", "include_body": True}, OK, "thickest(): Readable"),
    ("a method by its path", "find_symbol", {"name_path_pattern": "Shelf/add", "relative_path": "src"}, OK, "Method"),
    ("a symbol of the other project", "find_symbol", {"name_path_pattern": "Basket"}, OK, "[]"),
    ("references", "find_referencing_symbols", {"name_path": "starter", "relative_path": "src/shelf.ts"}, OK, "src/index.ts"),
    ("implementations", "find_implementations", {"name_path": "Readable", "relative_path": "src/book.ts"}, OK, "Book"),
    ("declaration", "find_declaration", {"relative_path": "src/index.ts", "regex": r"\(\)\.(thickest)"}, OK, "Shelf/thickest"),
    ("folder", "list_dir", {"relative_path": "src", "recursive": True}, OK, "shelf.ts"),
    ("search", "search_for_pattern", {"substring_pattern": "ohne Titel ☃"}, OK, "book.ts"),
    ("no memories here", "list_memories", {}, OK),
    ("replace a body", "replace_symbol_body",
        {"name_path": "Book/pages", "relative_path": "src/book.ts", "body": "pages(): number {\n    return 2 * this.sheets;\n  }"}, OK),
    ("rename", "rename_symbol", {"name_path": "Shelf/add", "relative_path": "src/shelf.ts", "new_name": "put"}, OK, "renamed"),
    ("the file after that", "read_file", {"relative_path": "src/shelf.ts"}, OK, 'put(new Book(\\"One\\", 10)).put('),
)

GO = cases(
    ("activate", "activate_project", path("go"), OK, "Active language servers: go"),
    ("overview", "get_symbols_overview", {"relative_path": "clock.go"}, OK, "Shower"),
    ("a struct with its body", "find_symbol", {"name_path_pattern": "Alarm", "include_body": True}, OK, "at int"),
    ("what a symbol is", "find_symbol", {"name_path_pattern": "Turn", "include_info": True}, OK, "past midnight too"),
    ("references", "find_referencing_symbols", {"name_path": "Show", "relative_path": "clock.go"}, OK, "a.Show() == a.at"),
    ("declaration", "find_declaration", {"relative_path": "alarm.go", "regex": r"alarm\.(Turn)"}, OK, "clock.go"),
    ("files by a mask", "find_file", {"file_mask": "*.mod", "relative_path": "."}, OK, "go.mod"),
    ("insert before", "insert_before_symbol",
        {"name_path": "Morning", "relative_path": "alarm.go", "body": "// Noon of a day.\nconst Noon = 12\n\n"}, OK),
    ("rename", "rename_symbol", {"name_path": "Hours", "relative_path": "clock.go", "new_name": "PerDay"}, OK, "renamed"),
    ("the file after that", "read_file", {"relative_path": "clock.go"}, OK, "% PerDay"),
    ("remember", "write_memory", {"memory_name": "time", "content": "flies"}, OK, "time"),
    ("forget", "delete_memory", {"memory_name": "time"}, OK, "time"),
)

BASH = cases(
    ("activate", "activate_project", path("bash"), OK, "Active language servers: bash"),
    ("overview", "get_symbols_overview", {"relative_path": "lib/log.sh"}, OK, "warn"),
    ("a function with its body", "find_symbol", {"name_path_pattern": "prune", "include_body": True}, OK, "keeping $KEEP"),
    ("references", "find_referencing_symbols", {"name_path": "say", "relative_path": "lib/log.sh"}, OK, "copy_one"),
    ("folder", "list_dir", {"relative_path": "lib", "recursive": False}, OK, "log.sh"),
    ("search", "search_for_pattern", {"substring_pattern": "^main", "context_lines_after": 2}, OK, "backup.sh"),
    ("replace a body", "replace_symbol_body",
        {"name_path": "warn", "relative_path": "lib/log.sh", "body": "warn() {\n    say \"careful: $1\" >&2\n}"}, OK),
    ("insert after", "insert_after_symbol", {"name_path": "warn", "relative_path": "lib/log.sh", "body": "\ndone_all() { :; }\n"}, OK),
    ("overview after the edits", "get_symbols_overview", {"relative_path": "lib/log.sh"}, OK, "done_all"),
    # Serena says it twice, and the Python SDK 2.x takes at most 1 MiB per event.
    ("a long line", "execute_shell_command",
        {"command": "head -c 400000 /dev/zero | tr '\\0' x", "max_answer_chars": 500000}, OK, "x" * 400000),
)

CLOSING = cases(
    ("back by name", "activate_project", named("python"), OK, "python"),
    ("its edits are there", "read_file", TREES, OK, "def pick"),
    ("its memories are there", "list_memories", {}, OK, "words"),
    ("a symbol of it again", "find_symbol", {"name_path_pattern": "Basket/fill", "include_body": True}, OK, "tree.pick()"),
    ("activate what is active", "activate_project", named("python"), OK, "python"),
    ("away by name", "activate_project", named("go"), OK, "go"),
    ("its memories are not here", "read_memory", {"memory_name": "words"}, REFUSED, "not found"),
    ("what is configured", "get_current_config", {}, OK, "Active project: go"),
)

PROJECTS = {"python": PYTHON, "typescript": TYPESCRIPT, "go": GO, "bash": BASH}

# Serena lists folders and projects in the order in which the file system and its registry have them.
UNORDERED = {"list_dir", "find_file", "search_for_pattern", "get_current_config", "replace_in_files"}

# (pattern, replacement, reason): what differs between any two runs of Serena itself.
MASKS = [
    (r"session id is `[0-9a-f]{8}`", "session id is `ID`", "random"),
]

"""The blocks of code in the documents, so that what is run is what users copy.

usage: blocks.py DOCUMENT BEGINNING prints the one block of the document that begins so.
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]


def blocks(document):
    """(language, text) of each block, in order. `document` is a path from the root."""
    language, lines = None, []
    for line in (ROOT / document).read_text().splitlines(keepends=True):
        if not line.startswith("```"):
            lines.append(line)
        elif language is None:
            language, lines = line[3:].strip(), []
        else:
            yield language, "".join(lines)
            language = None


def block(document, begins):
    """The text of the one block that begins so."""
    found = [text for _, text in blocks(document) if text.startswith(begins)]
    if len(found) != 1:
        raise LookupError(f"{document} has {len(found)} blocks that begin with {begins!r}")
    return found[0]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.stdout.write(block(*sys.argv[1:]))

"""What is in a static bridge, as CycloneDX 1.6 JSON on stdout: sbom.py BINARY TARGET

In the file are the crates that are linked in (`required`), and the libc, the unwinder and Rust's own library, which no
lock file names. Crates that only run in the compiler, as proc macros and build scripts do, are `excluded`. Nothing of
it tells the time or the machine: the same sources give the same document.
"""

import hashlib
import json
import re
import subprocess
import sys
import tomllib
import uuid

CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def tree(target, edges):
    """(depth, name, version, is a proc macro, licence) of each line of the unfolded tree."""
    arguments = ("--target", target, "--edges", edges, "--no-dedupe", "--prefix", "depth", "--format", "|{p}|{l}")
    for line in run("cargo", "tree", "--locked", *arguments).splitlines():
        depth, package, licence = line.split("|")
        name, version = package.split(" ")[:2]
        yield int(depth), name, version.removeprefix("v"), "(proc-macro)" in package, licence


def graph(target, edges, stop_at_macros):
    """Each package's licence, and whom it depends on."""
    licences, depends, path, macro = {}, {}, [], None
    for depth, name, version, proc_macro, licence in tree(target, edges):
        if macro is not None and depth > macro:
            continue
        macro = depth if stop_at_macros and proc_macro else None
        if macro is not None:
            continue
        package = (name, version)
        del path[depth:]
        if path:
            depends[path[-1]].add(package)
        path.append(package)
        licences[package] = licence
        depends.setdefault(package, set())
    return licences, depends


def purl(package):
    return "pkg:cargo/{}@{}".format(*package)


def crate(package, licence, scope, checksum):
    # `A/B` is how crates said `A OR B` before they had to speak SPDX.
    expression = re.sub(r"\s*/\s*", " OR ", licence)
    return {
        "type": "library",
        "bom-ref": purl(package),
        "name": package[0],
        "version": package[1],
        "scope": scope,
        "hashes": [{"alg": "SHA-256", "content": checksum}],
        "licenses": [{"expression": expression}],
        "purl": purl(package),
    }


def debian(file):
    """The package that a library of the C compiler comes from, where the machine is a Debian."""
    path = run("realpath", run("cc", f"-print-file-name={file}").strip()).strip()
    try:
        # Where /lib is a link to /usr/lib, dpkg may know the file by either name.
        found = run("sh", "-c", 'dpkg -S "$1" 2>/dev/null || dpkg -S "${1#/usr}"', "sh", path)
        package = found.split(": ")[0]
        shown = run("dpkg-query", "-W", "-f", "${source:Package}\t${Version}\t${Architecture}", package)
    except (OSError, subprocess.CalledProcessError):
        return None
    source, version, architecture = shown.split("\t")
    name = package.split(":")[0]
    reference = f"pkg:deb/debian/{name}@{version}?arch={architecture}"
    return {
        "type": "library",
        "bom-ref": reference,
        "name": name,
        "version": version,
        "description": f"{file} of {source}, linked in",
        "scope": "required",
        "purl": reference,
    }


def rust_std():
    release = re.search(r"^release: (.*)$", run("rustc", "-vV"), re.MULTILINE)[1]
    return {
        "type": "library",
        "bom-ref": f"pkg:generic/rust-std@{release}",
        "name": "rust-std",
        "version": release,
        "description": "Rust's standard library, linked in",
        "scope": "required",
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
        "purl": f"pkg:generic/rust-std@{release}",
    }


def main():
    binary, target = sys.argv[1:]
    with open("Cargo.lock", "rb") as file:
        locked = tomllib.load(file)["package"]
    checksums = {(p["name"], p["version"]): p["checksum"] for p in locked if p.get("source") == CRATES_IO}
    with open("Cargo.toml", "rb") as file:
        manifest = tomllib.load(file)["package"]
    with open(binary, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()

    linked, _ = graph(target, "normal", stop_at_macros=True)
    involved, depends = graph(target, "no-dev", stop_at_macros=False)
    root = (manifest["name"], manifest["version"])
    components = [
        crate(package, involved[package], "required" if package in linked else "excluded", checksums[package])
        for package in sorted(involved)
        if package != root
    ]
    native = [part for part in (debian("libc.a"), debian("libgcc_eh.a"), rust_std()) if part]
    edges = {purl(package): sorted(purl(needed) for needed in depends[package]) for package in sorted(depends)}
    edges[purl(root)] += [part["bom-ref"] for part in native]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": purl(root),
                "name": root[0],
                "version": root[1],
                "description": manifest["description"],
                "hashes": [{"alg": "SHA-256", "content": digest}],
                "licenses": [{"expression": manifest["license"]}],
                "purl": purl(root),
                "properties": [{"name": "rust:target", "value": target}],
            },
        },
        "components": components + native,
        "dependencies": [{"ref": ref, "dependsOn": needed} for ref, needed in edges.items()],
    }
    json.dump(document, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()

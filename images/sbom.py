"""Bill of materials of an image: the Python environment's, as CycloneDX's own tool wrote it, and the system's packages.

    python sbom.py PYTHON.json DEBIAN.tsv > sbom.cdx.json

The tool for Python environments knows nothing of Debian, and tools that know both (syft, trivy) stamp each run with a
time and a random number. Every component has a package URL, by which scanners look for known holes.
"""

import json
import platform
import sys
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL


def system_packages(table: str, distribution: dict[str, str]) -> list[dict[str, Any]]:
    """Components of dpkg's lines `name<tab>version<tab>architecture`."""
    found = []
    for line in table.splitlines():
        name, version, architecture = line.split("\t")
        vendor, release = distribution["ID"], distribution["VERSION_ID"]
        qualifiers = {"arch": architecture, "distro": f"{vendor}-{release}"}
        url = PackageURL("deb", vendor, name, version, qualifiers).to_string()
        found.append({"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url})
    return found


def main(arguments: list[str]) -> int:
    """Print the whole; 1 if it is not what the schema says."""
    bill = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    table = Path(arguments[1]).read_text(encoding="utf-8")
    bill["components"] += system_packages(table, platform.freedesktop_os_release())
    bill["components"].sort(key=lambda component: component["bom-ref"])
    text = json.dumps(bill, indent=1, sort_keys=True)
    if fault := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        print(fault, file=sys.stderr)
        return 1
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

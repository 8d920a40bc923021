"""Write edgecls/zoo/operations.csv: what a runtime executes for each network of the catalog.

    python scripts/make_operations.py [--check]

Every network is built without values, and its branches are fused as export does. --check writes nothing, and fails if
the table says anything else.
"""

from __future__ import annotations

import argparse
import sys

from edgecls.reparam import fuse
from edgecls.zoo import catalog
from edgecls.zoo.executed import catalog_operations
from edgecls.zoo.operations import TABLE, Kept, operations, write_table


def main() -> int:
    """Write or check the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args().check
    rows: dict[str, Kept] = {}
    wrong = []
    for entry in map(catalog.get, catalog.names()):
        if entry.architecture in rows:
            continue
        found = Kept(entry.input_size, catalog_operations(entry.name, fuse))
        rows[entry.architecture] = found
        print(entry.architecture, len(found.text), file=sys.stderr)
        if check and found != operations(entry.name):
            wrong.append(entry.architecture)
    if not check:
        partial = TABLE.with_name("." + TABLE.name)
        write_table(partial, rows)
        partial.replace(TABLE)
    print(f"{len(rows)} networks" + (f", wrong: {', '.join(wrong)}" if wrong else ""))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

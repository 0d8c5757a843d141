"""An export in a process of its own, to be killed: `python -m tests.audit.export_killed …`.

Folder of the log, its key, the file to write, the state's file.
"""

import sys
from pathlib import Path

from audit.export.exporter import Exporter, Waits
from audit.export.reading import LogReader
from audit.export.sinks import FileSink
from meshkit.tlog import VerifierKey


def run(folder, key, out, state):
    reader = LogReader(lambda path: (Path(folder) / path).read_bytes(), VerifierKey.parse(key))
    sink = FileSink(Path(out))
    Exporter(reader, lambda _origin: sink, Path(state), "ecs", waits=Waits()).run(follow=False)


if __name__ == "__main__":
    run(*sys.argv[1:])

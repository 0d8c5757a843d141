#!/bin/sh
# Puts the TLS scanner sslyze into an environment of its own, var/tools/sslyze.
#
# It is AGPL and its pins fight with ours, so it is a tool we run, never a dependency.
set -eu
cd "$(dirname "$0")/../.."
target=var/tools/sslyze
version=6.3.1
if [ -x "$target/bin/sslyze" ] && "$target/bin/python" -c "
import importlib.metadata, sys
sys.exit(importlib.metadata.version('sslyze') != '$version')"; then
  exit 0
fi
mkdir -p var/tools
python="${PYTHON:-python3}"
"$python" -m venv --clear "$target"
"$target/bin/pip" install --quiet --disable-pip-version-check "sslyze==$version"

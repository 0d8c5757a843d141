#!/bin/bash
# Puts promtool into a folder: promtool.sh FOLDER
#
# It comes out of Debian's package `prometheus`, which is unpacked and not installed: installing it
# would start a server that listens on port 9090 of every address.
set -eu
into=$1
[ -x "$into/promtool" ] && exit 0
mkdir -p "$into"
if found=$(command -v promtool); then
  ln -sf "$found" "$into/promtool"
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
download() { apt-get -qq -o APT::Sandbox::User="$(id -un)" download prometheus; }
if ! download 2>/dev/null; then
  [ "$(id -u)" -ne 0 ] || apt-get update -qq
  download || { echo "Tests need promtool, of the Debian package prometheus" >&2; exit 1; }
fi
dpkg-deb --fsys-tarfile prometheus_*.deb | tar --extract ./usr/bin/promtool
cd - >/dev/null
install -m 0755 "$work/usr/bin/promtool" "$into/promtool"

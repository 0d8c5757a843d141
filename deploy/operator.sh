#!/bin/bash
# bao as the operator of an appliance or mesh that runs on this host:
#
#   deploy/operator.sh var/appliance write -f transit/keys/t-demo/rotate
#
# The login is used for this one command and revoked; nothing secret is in an argument.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
folder=$1/openbao
shift
bao=$here/.venv/bin/bao
[ -x "$bao" ] || bao=bao
BAO_ADDR=$("$here/.venv/bin/python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["api_addr"])' \
  "$folder/openbao.json")
export BAO_ADDR BAO_CACERT=$folder/tls/ca.pem
BAO_TOKEN=$("$bao" write -field=token auth/approle/login - <"$folder/operator.json")
export BAO_TOKEN
trap '"$bao" token revoke -self >/dev/null' EXIT
"$bao" "$@"

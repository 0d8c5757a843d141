# Audit seals payloads, signs checkpoints and moves the checkpoint lock.

# Its own token: look at it, prolong it, give it back. Nothing of the default policy besides.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}

# Its own certificate: one exact SPIFFE id, P-256, an hour at most.
path "pki/issue/service.audit" {
  capabilities = ["update"]
}

# The log's checkpoints, and its verifier key.
path "transit/sign/audit-checkpoint" {
  capabilities = ["update"]
}
path "transit/keys/audit-checkpoint" {
  capabilities = ["read"]
}

# The newest checkpoint ever signed, by compare-and-swap: a disk put back to an older state shows.
# `create` and `update`, never `delete`: the lock only moves on.
path "kv/data/audit/checkpoint-lock" {
  capabilities = ["create", "read", "update"]
}

# The key under which people and workloads become pseudonyms in leaves.
path "kv/data/pseudonym-key" {
  capabilities = ["read"]
}

# Data keys of the payload store, wrapped by a key per tenant.
path "transit/datakey/plaintext/t-*" {
  capabilities = ["update"]
}
path "transit/decrypt/t-*" {
  capabilities = ["update"]
}
# To wrap them anew after a rotation: OpenBao's own rewrap knows no associated data.
path "transit/encrypt/t-*" {
  capabilities = ["update"]
}

# The cache seals answers under tenant data keys and looks them up by keyed hashes.

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
path "pki/issue/service.cache" {
  capabilities = ["update"]
}

# Two versions of the key by which compliance vouches for text: newest and the one before it.
path "kv/data/screening-mac" {
  capabilities = ["read"]
}

# The key of its look-up hashes.
path "kv/data/cache-keys" {
  capabilities = ["read"]
}

# Data keys, wrapped by a key per tenant. `update` alone: `create` would make missing keys.
path "transit/datakey/plaintext/t-*" {
  capabilities = ["update"]
}
path "transit/decrypt/t-*" {
  capabilities = ["update"]
}

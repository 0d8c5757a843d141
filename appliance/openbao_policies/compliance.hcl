# Compliance signs what it let through and makes tokens, and may read no data key.

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
path "pki/issue/service.compliance" {
  capabilities = ["update"]
}

# Two versions of the key by which compliance vouches for text: newest and the one before it.
path "kv/data/screening-mac" {
  capabilities = ["read"]
}

# The key that tokens and hashes are derived from, and their values sealed under.
path "kv/data/token-keys" {
  capabilities = ["read"]
}


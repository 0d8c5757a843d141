# Inference checks that a prompt was screened and that a model is signed, and opens sealed models.
# It may read no tenant's data key.

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
path "pki/issue/service.inference" {
  capabilities = ["update"]
}

# Two versions of the key by which compliance vouches for text: newest and the one before it.
path "kv/data/screening-mac" {
  capabilities = ["read"]
}

# Whose signatures on models count: the public halves.
path "transit/keys/model-signing" {
  capabilities = ["read"]
}
# To unwrap the data keys of sealed models; never to make one.
path "transit/decrypt/model-storage" {
  capabilities = ["update"]
}

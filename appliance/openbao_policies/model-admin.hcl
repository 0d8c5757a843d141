# The model administrator vouches for models: signs their manifests, seals their files. Nothing else
# can by its own policy, and it can do nothing else. Its login belongs to whoever decides what may be
# loaded, off this host. (The operator writes policies: ADR 9 and 10 say what follows from that.)

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

path "transit/sign/model-signing" {
  capabilities = ["update"]
}
path "transit/keys/model-signing" {
  capabilities = ["read"]
}

# Data keys of sealed models: made to seal, opened to verify.
path "transit/datakey/plaintext/model-storage" {
  capabilities = ["update"]
}
path "transit/decrypt/model-storage" {
  capabilities = ["update"]
}
